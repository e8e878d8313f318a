
    <tableau>
    <helpers>
    double y[SIZE][LANES] = {}, z[SIZE][LANES] = {}, k[12][SIZE][LANES] = {}, p[N_P + 1][LANES] = {};
    double now[LANES] = {}, end[LANES] = {}, h[LANES] = {}, five[LANES] = {}, three[LANES] = {};
    wp::int64 task[LANES], trials[LANES] = {}, coming = (thread + offset) * LANES;
    bool repeated[LANES] = {};
    for (int lane = 0; lane < LANES; ++lane)
        task[lane] = -1;
    while (true) {
        bool busy = false;
        for (int lane = 0; lane < LANES; ++lane) {
            if (task[lane] < 0 && coming < num) {
                task[lane] = coming++;
                if (coming % LANES == 0)
                    coming += (threads - 1) * LANES;
                const wp::int64 i = task[lane];
                for (int j = 0; j < SIZE; ++j)
                    y[j][lane] = j < N ? start.data[i * N + j] : j > N && (j - N - 1) % (N + 1) == 0 ? 1.0 : 0.0;
                for (int j = 0; j < N_P; ++j)
                    p[j][lane] = params.data[(i % rows) * N_P + j];
                now[lane] = span.data[2 * i];
                end[lane] = span.data[2 * i + 1];
                h[lane] = 0.25 * (end[lane] - now[lane]);
                trials[lane] = 0;
                repeated[lane] = false;
            }
            busy |= task[lane] >= 0;
        }
        if (!busy)
            break;
        for (int s = 0; s < 12; ++s) {
            for (int j = 0; j < SIZE; ++j) {
                double sum[LANES] = {};
                for (int q = 0; q < s; ++q)
                    <lanes> sum[lane] += A[s][q] * k[q][j][lane];
                <lanes> z[j][lane] = y[j][lane] + h[lane] * sum[lane];
            }
            <lanes>
            {
                const double t = now[lane] + C[s] * h[lane];
                <rates>
            }
        }
        for (int lane = 0; lane < LANES; ++lane)
            five[lane] = three[lane] = 0.0;
        for (int j = 0; j < SIZE; ++j) {
            double sum[LANES] = {}, e5[LANES] = {}, e3[LANES] = {};
            for (int s = 0; s < 12; ++s)
                <lanes> {
                    sum[lane] += B[s] * k[s][j][lane];
                    e5[lane] += E5[s] * k[s][j][lane];
                    e3[lane] += E3[s] * k[s][j][lane];
                }
            <lanes> {
                z[j][lane] = y[j][lane] + h[lane] * sum[lane];
                const double a = y[j][lane] < 0.0 ? -y[j][lane] : y[j][lane], b = z[j][lane] < 0.0 ? -z[j][lane] : z[j][lane];
                const double scale = j <= N ? atol + rtol * (a > b ? a : b) : INFINITY;
                five[lane] += (e5[lane] / scale) * (e5[lane] / scale);
                three[lane] += (e3[lane] / scale) * (e3[lane] / scale);
            }
        }
        for (int lane = 0; lane < LANES; ++lane) {
            const wp::int64 i = task[lane];
            if (i < 0)
                continue;
            const double spread = five[lane] + 0.01 * three[lane];
            const double error = spread > 0.0 ? h[lane] * five[lane] / wp::sqrt(spread * double(N + 1)) : spread;
            bool lost = ++trials[lane] > most, done = false;
            if (error < 1.0) {
                done = now[lane] + h[lane] >= end[lane];
                now[lane] = done ? end[lane] : now[lane] + h[lane];
                for (int j = 0; j < SIZE; ++j) {
                    y[j][lane] = z[j][lane];
                    lost |= j < N && !(y[j][lane] < 1e8 && y[j][lane] > -1e8);
                }
                double factor = error > 0.0 ? 0.9 * wp::pow(error, -0.125) : 10.0;
                factor = factor < 10.0 ? factor : 10.0;
                h[lane] *= repeated[lane] && factor > 1.0 ? 1.0 : factor;
                h[lane] = now[lane] + h[lane] < end[lane] ? h[lane] : end[lane] - now[lane];
                repeated[lane] = false;
            } else {
                const double factor = 0.9 * wp::pow(error, -0.125);
                h[lane] *= factor > 0.2 ? factor : 0.2;
                repeated[lane] = true;
                lost |= !(now[lane] + h[lane] > now[lane]);
            }
            if (done || lost) {
                for (int j = 0; j < SIZE; ++j)
                    finish.data[i * SIZE + j] = lost ? NAN : y[j][lane];
                task[lane] = -1;
                h[lane] = 0.0;
            }
        }
    }
