
    #pragma clang fp contract(fast)
    typedef double V __attribute__((ext_vector_type(LANES)));
    const wp::int64 S = 1;
    const wp::int64 me = thread + offset;
    V* const w = reinterpret_cast<V*>(work.data) + me * rows;
    auto absolute = [](V v) { return __builtin_elementwise_abs(v); };
    auto ceiling = [](V v) { return __builtin_elementwise_ceil(v); };
    auto largest = [](V v) { return __builtin_reduce_max(v); };
    auto total = [](V v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); };
    #define OPTCTL_INLINE __attribute__((always_inline))
