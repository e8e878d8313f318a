
    typedef double V;
    const wp::int64 S = threads;
    const wp::int64 me = thread + offset;
    V* const w = work.data + me;
    auto absolute = [](V v) { return ::fabs(v); };
    auto ceiling = [](V v) { return ::ceil(v); };
    auto largest = [](V v) { return v; };
    auto total = [](V v) { return v; };
    #define OPTCTL_INLINE
