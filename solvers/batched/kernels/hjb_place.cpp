
    const REAL cost = costs.data[first];
    bool good = cost - cost == 0.0;
    for (int axis = 0; axis < N; ++axis) {
        const REAL x = get(states, first, N, axis);
        good = good && x - x == 0.0;
    }
    REAL* entry = table.data + (first / WIDTH * controls + control) * (N + 1) * WIDTH + first % WIDTH;
    for (int axis = 0; axis < N; ++axis) {
        const REAL x = good ? get(states, first, N, axis) : get(nodes, first, N, axis);
        const REAL size = REAL(counts.data[axis]), position = (x - axes.data[axis]) / axes.data[N + axis];
        const REAL turned = position - size * wp::floor(position / size);
        entry[axis * WIDTH] = wrapped.data[axis] ? (0.0 <= turned && turned < size ? turned : 0.0)
                                                 : (position > 0.0 ? (position < size - 1.0 ? position : size - 1.0) : 0.0);
    }
    entry[N * WIDTH] = good ? cost : OUTSIDE;
