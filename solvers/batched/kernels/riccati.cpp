
    typedef wp::int64 I;
    double P[N][N][LANES], A[N][N][LANES], B[N][M][LANES], Q[N][N][LANES], X[N][M][LANES], R[M][M][LANES];
    double PA[N][N][LANES], PB[N][M][LANES], S[M][M][LANES], G[M][N][LANES], K[M][N][LANES];
    for (I group = thread + offset; group * LANES < num; group += threads) {
        I who[LANES];
        for (int lane = 0; lane < LANES; ++lane)
            who[lane] = group * LANES + lane < num ? group * LANES + lane : num - 1;
        auto load = [&](const auto& from, I per, I at, auto& to, int rows, int columns) {
            for (int i = 0; i < rows; ++i)
                for (int j = 0; j < columns; ++j)
                    for (int lane = 0; lane < LANES; ++lane)
                        to[i][j][lane] = from.data[((who[lane] * per + at) * rows + i) * columns + j];
        };
        auto save = [&](auto& to, I per, I at, const auto& from, int rows, int columns) {
            for (int i = 0; i < rows; ++i)
                for (int j = 0; j < columns; ++j)
                    for (int lane = 0; lane < LANES; ++lane)
                        to.data[((who[lane] * per + at) * rows + i) * columns + j] = from[i][j][lane];
        };
        load(end, 1, 0, P, N, N);
        save(values, steps + 1, steps, P, N, N);
        for (I k = steps - 1; k >= 0; --k) {
            if (k == steps - 1 || stages > 1) {
                const I at = k < stages ? k : stages - 1;
                load(a_in, stages, at, A, N, N);
                load(b_in, stages, at, B, N, M);
                load(q_in, stages, at, Q, N, N);
                load(n_in, stages, at, X, N, M);
                load(r_in, stages, at, R, M, M);
            }
            for (int i = 0; i < N; ++i) {
                for (int j = 0; j < N; ++j) {
                    double sum[LANES] = {};
                    for (int l = 0; l < N; ++l)
                        <lanes> sum[lane] += P[i][l][lane] * A[l][j][lane];
                    <lanes> PA[i][j][lane] = sum[lane];
                }
                for (int j = 0; j < M; ++j) {
                    double sum[LANES] = {};
                    for (int l = 0; l < N; ++l)
                        <lanes> sum[lane] += P[i][l][lane] * B[l][j][lane];
                    <lanes> PB[i][j][lane] = sum[lane];
                }
            }
            for (int i = 0; i < M; ++i) {
                for (int j = 0; j < M; ++j) {
                    double sum[LANES] = {};
                    for (int l = 0; l < N; ++l)
                        <lanes> sum[lane] += B[l][i][lane] * PB[l][j][lane];
                    <lanes> S[i][j][lane] = R[i][j][lane] + sum[lane];
                }
                for (int j = 0; j < N; ++j) {
                    double sum[LANES] = {};
                    for (int l = 0; l < N; ++l)
                        <lanes> sum[lane] += B[l][i][lane] * PA[l][j][lane];
                    <lanes> K[i][j][lane] = G[i][j][lane] = X[j][i][lane] + sum[lane];
                }
            }
            for (int j = 0; j < M; ++j) {  // S = LL', then L and L' solved in place; a pivot that is not positive gives NaN
                for (int l = 0; l < j; ++l)
                    <lanes> S[j][j][lane] -= S[j][l][lane] * S[j][l][lane];
                <lanes> S[j][j][lane] = S[j][j][lane] > 0.0 ? wp::sqrt(S[j][j][lane]) : NAN;
                for (int i = j + 1; i < M; ++i) {
                    for (int l = 0; l < j; ++l)
                        <lanes> S[i][j][lane] -= S[i][l][lane] * S[j][l][lane];
                    <lanes> S[i][j][lane] /= S[j][j][lane];
                }
            }
            for (int c = 0; c < N; ++c) {
                for (int j = 0; j < M; ++j) {
                    for (int l = 0; l < j; ++l)
                        <lanes> K[j][c][lane] -= S[j][l][lane] * K[l][c][lane];
                    <lanes> K[j][c][lane] /= S[j][j][lane];
                }
                for (int j = M - 1; j >= 0; --j) {
                    for (int l = j + 1; l < M; ++l)
                        <lanes> K[j][c][lane] -= S[l][j][lane] * K[l][c][lane];
                    <lanes> K[j][c][lane] /= S[j][j][lane];
                }
            }
            for (int i = 0; i < N; ++i)
                for (int j = 0; j < N; ++j) {
                    double sum[LANES] = {};
                    for (int l = 0; l < N; ++l)
                        <lanes> sum[lane] += A[l][i][lane] * PA[l][j][lane];
                    for (int l = 0; l < M; ++l)
                        <lanes> sum[lane] -= K[l][i][lane] * G[l][j][lane];
                    <lanes> P[i][j][lane] = Q[i][j][lane] + sum[lane];
                }
            for (int i = 0; i < N; ++i)
                for (int j = 0; j < i; ++j)
                    <lanes> P[i][j][lane] = P[j][i][lane] = 0.5 * (P[i][j][lane] + P[j][i][lane]);
            save(gains, steps, k, K, M, N);
            save(values, steps + 1, k, P, N, N);
        }
    }
