"""CasADi expressions → Warp and C++ source, compiled once, cached and launched."""
