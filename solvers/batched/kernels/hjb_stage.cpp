
    typedef wp::int64 I;
    const REAL* entry = table.data + first / WIDTH * controls * (N + 1) * WIDTH + first % WIDTH;
    REAL best[LANES];
    <lanes> best[lane] = INFINITY;
    for (I control = 0; control < controls; ++control, entry += (N + 1) * WIDTH) {
        I corner[1 << N][LANES];
        REAL weight[1 << N][LANES], total[LANES];
        <lanes> corner[0][lane] = 0;
        <lanes> weight[0][lane] = 1.0;
        for (int axis = 0; axis < N; ++axis) {
            const I size = counts.data[axis];
            I below[LANES], above[LANES];
            REAL part[LANES];
            <lanes> {
                const REAL position = entry[axis * WIDTH + lane];
                below[lane] = I(position);
                above[lane] = below[lane] + 1 < size ? below[lane] + 1 : 0;
                part[lane] = position - REAL(below[lane]);  // 0 on the last node of what is not wrapped
            }
            for (int c = 0; c < 1 << axis; ++c)
                <lanes> {
                    corner[c + (1 << axis)][lane] = corner[c][lane] * size + above[lane];
                    weight[c + (1 << axis)][lane] = weight[c][lane] * part[lane];
                    corner[c][lane] = corner[c][lane] * size + below[lane];
                    weight[c][lane] *= 1.0 - part[lane];
                }
        }
        <lanes> total[lane] = entry[N * WIDTH + lane];
        for (int c = 0; c < 1 << N; ++c)
            <lanes> total[lane] += weight[c][lane] * before.data[corner[c][lane]];
        <lanes> best[lane] = total[lane] < best[lane] ? total[lane] : best[lane];  // what is no number is not less
    }
    for (int lane = 0; lane < count; ++lane)
        after.data[first + lane] = best[lane];
