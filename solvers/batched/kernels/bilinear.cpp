
    const wp::int64 n = slots * K, blocks = (n + LANES - 1) / LANES;
    const wp::int64 pulse = 0, slope = pulse + n, path = slope + n, terms = path + (slots * splits + 1) * N;
    const wp::int64 factors = terms + (TERMS + 1) * N, costate = factors + TERMS + 1, before = costate + N, scaled = before + N;
    const wp::int64 source = scaled + N, pushes = source + N, begin = pushes + 5 * CHARGED, numbers = begin + N;
    const wp::int64 rates = numbers + systems * NC, value = rates + systems * (K + 1), homes = value + 1;
    const wp::int64 house = (6 + 2 * MEMORY) * blocks + OWN;
    const double dt = duration / double(slots);
    auto W = [&](wp::int64 row) OPTCTL_INLINE -> V& { return w[row * S]; };
    auto entry = [&](wp::int64 row, wp::int64 i) OPTCTL_INLINE -> double& {
        return reinterpret_cast<double*>(w + (row + i / LANES) * S)[i % LANES];
    };

    // --- cost and gradient of all lanes: `pulse` -> `value`, `slope` ---
    const double nodes[5] = {<nodes>}, weights[5] = {<weights>};
    const wp::int64 charged[CHARGED] = {<charged>};
    double powers[5][TERMS + 1];
    for (int g = 0; g < 5; ++g)
        for (int m = 0; m <= TERMS; ++m)
            powers[g][m] = m == 0 ? 1.0 : nodes[g] * powers[g][m - 1];
    // h times weight times R x at a Gauss-Legendre node, for the states that cost, in row `to`; returns half its product with x
    auto running_cost = [&](wp::int64 order, int g, V h, wp::int64 to) -> V {
        for (int i = 0; i < CHARGED; ++i) {
            V x = W(terms + order * N + charged[i]);
            for (wp::int64 m = order - 1; m >= 0; --m)
                x = x * nodes[g] + W(terms + m * N + charged[i]);
            W(before + i) = x;
        }
        V sum = 0.0;
        for (int i = 0; i < CHARGED; ++i) {
            V y = 0.0;
            for (int m = 0; m < CHARGED; ++m)
                y += running.data[charged[i] * N + charged[m]] * W(before + m);
            W(to + i) = h * weights[g] * y;
            sum += 0.5 * W(before + i) * W(to + i);
        }
        return sum;
    };
    auto divided = [&](V theta) -> V { const V r = ceiling(0.25 * theta); return r > 1.0 ? r : V(1.0); };
    auto evaluate = [&]() OPTCTL_INLINE {
        V a[NE], d[NE], good = 1.0;
        // the entries of A in a slot; returns a bound of the norm of dt A, zero where it is no number or beyond what is allowed for
        auto generate = [&](wp::int64 e, wp::int64 j) OPTCTL_INLINE -> V {
            const wp::int64 c = numbers + e * NC, u = pulse + j * K, r = rates + e * (K + 1);
            V norm = W(r);
            for (wp::int64 k = 0; k < K; ++k)
                norm += absolute(W(u + k)) * W(r + 1 + k);
            <entries>
            norm *= dt;
            good = norm <= 4.0 * double(splits) ? good : V(NAN);
            return norm <= 4.0 * double(splits) ? norm : V(0.0);
        };
        // t_m = h/m A t_{m-1} from the state in row `from`, added up in row `to`; returns how many there are
        auto taylor = [&](wp::int64 from, wp::int64 to, V h, V theta) OPTCTL_INLINE -> wp::int64 {
            for (wp::int64 i = 0; i < N; ++i)
                W(terms + i) = W(to + i) = W(from + i);
            V bound = theta;
            wp::int64 order = 0;
            while (order < TERMS && largest(bound) > 1e-16) {
                ++order;
                const V f = bound > 1e-16 ? h / double(order) : V(0.0);
                W(factors + order) = f;
                const wp::int64 p = terms + (order - 1) * N, q = terms + order * N;
                <product>
                bound *= theta / double(order + 1);
            }
            return order;
        };
        for (wp::int64 i = 0; i < n; ++i) {
            for (wp::int64 lane = 0; lane < LANES; ++lane)
                entry(pulse + i, lane) = scale.data[2 * (i % K)] + scale.data[2 * (i % K) + 1] * entry(homes + lane * house + blocks, i);
            W(slope + i) = 0.0;
        }
        V cost = 0.0;
        for (wp::int64 e = 0; e < systems; ++e) {
            for (wp::int64 i = 0; i < N; ++i)
                W(path + i) = W(begin + i);
            for (wp::int64 j = 0; j < slots; ++j) {
                const V theta = generate(e, j), r = divided(theta);
                const wp::int64 parts = wp::int64(largest(r));
                for (wp::int64 i = 0; i < parts; ++i) {
                    const wp::int64 from = path + (j * splits + i) * N, to = i + 1 < parts ? from + N : path + (j + 1) * splits * N;
                    const V share = double(i) < r ? 1.0 / r : V(0.0);
                    const wp::int64 order = taylor(from, to, dt * share, theta * share);
                    if (RUNNING)
                        for (int g = 0; g < 5; ++g)
                            cost += running_cost(order, g, dt * share, pushes);
                }
            }
            const wp::int64 last = path + slots * splits * N;
            for (wp::int64 i = 0; i < N; ++i) {
                V y = 0.0;
                for (wp::int64 m = 0; m < N; ++m)
                    y += final.data[i * N + m] * W(last + m);
                W(costate + i) = y;
                cost += 0.5 * y * W(last + i);
            }
            for (wp::int64 j = slots - 1; j >= 0; --j) {
                const V theta = generate(e, j), r = divided(theta);
                for (int i = 0; i < NE; ++i)
                    d[i] = 0.0;
                for (wp::int64 i = wp::int64(largest(r)) - 1; i >= 0; --i) {
                    const V share = double(i) < r ? 1.0 / r : V(0.0);
                    const wp::int64 order = taylor(path + (j * splits + i) * N, scaled, dt * share, theta * share);
                    if (RUNNING)
                        for (int g = 0; g < 5; ++g)
                            running_cost(order, g, dt * share, pushes + g * CHARGED);
                    // what drives s_m: the costate after the interval, and the running cost at the nodes
                    auto drive = [&](wp::int64 m, wp::int64 to) {
                        for (wp::int64 l = 0; l < N; ++l)
                            W(to + l) = W(costate + l);
                        for (int g = 0; RUNNING && g < 5; ++g)
                            for (int l = 0; l < CHARGED; ++l)
                                W(to + charged[l]) += powers[g][m] * W(pushes + g * CHARGED + l);
                    };
                    drive(order, before);
                    for (wp::int64 m = order; m > 0; --m) {
                        for (wp::int64 l = 0; l < N; ++l)
                            W(scaled + l) = W(factors + m) * W(before + l);
                        if (RUNNING)
                            drive(m - 1, source);
                        const wp::int64 p = terms + (m - 1) * N, from = RUNNING ? source : costate;
                        <adjoint>
                    }
                    for (wp::int64 l = 0; l < N; ++l)
                        W(costate + l) = W(before + l);
                }
                const wp::int64 c = numbers + e * NC, u = slope + j * K;
                <slopes>
            }
        }
        cost *= 1.0 / double(systems);
        for (wp::int64 j = 0; j < slots; ++j)
            for (wp::int64 k = 0; k < K; ++k) {
                const V u = W(pulse + j * K + k);
                V quadratic = 0.0;
                for (wp::int64 m = 0; m < K; ++m)
                    quadratic += effort.data[k * K + m] * W(pulse + j * K + m);
                cost += dt * u * (0.5 * quadratic + effort.data[K * K + k]);
                V& g = W(slope + j * K + k);
                g = scale.data[2 * k + 1] * (g / double(systems) + dt * (quadratic + effort.data[K * K + k]));
            }
        W(value) = (cost + constant) * good;
    };

    // --- the iteration of one member: rows z, trial, gradient, direction, free controls, pairs, then its own numbers ---
    auto clipped = [&](double z, wp::int64 i) {
        const double low = box.data[2 * (i % K)], high = box.data[2 * (i % K) + 1];
        return z < low ? low : z > high ? high : z;
    };
    auto dot = [&](wp::int64 p, wp::int64 q) {
        V sum = 0.0;
        for (wp::int64 b = 0; b < blocks; ++b)
            sum += W(p + b) * W(q + b);
        return total(sum);
    };
    auto dot_free = [&](wp::int64 p, wp::int64 q, wp::int64 open) {
        V sum = 0.0;
        for (wp::int64 b = 0; b < blocks; ++b)
            sum += W(open + b) * W(p + b) * W(q + b);
        return total(sum);
    };
    auto residual = [&](wp::int64 z, wp::int64 g) {
        double worst = 0.0;
        for (wp::int64 i = 0; i < n; ++i) {
            const double size = wp::abs(entry(z, i) - clipped(entry(z, i) - entry(g, i), i));
            worst = size > worst || size != size ? size : worst;
        }
        return worst;
    };
    wp::int64 next = me, busy = 0;
    auto load = [&](wp::int64 lane) {
        const wp::int64 z = homes + lane * house, own_row = z + (6 + 2 * MEMORY) * blocks;
        for (wp::int64 b = 0; b < 6 * blocks; ++b)
            W(z + b) = 0.0;
        for (wp::int64 b = 0; b < OWN; ++b)
            W(own_row + b) = 0.0;
        entry(own_row, MEMBER) = next < num ? double(next) : -1.0;
        if (next >= num)
            return;
        for (wp::int64 i = 0; i < n; ++i)
            entry(z + blocks, i) = clipped(guess.data[next * n + i], i);
        for (wp::int64 i = 0; i < N; ++i)
            entry(begin + i, lane) = start.data[(next % starts) * N + i];
        const wp::int64 system = own > 0 ? next : 0;
        for (wp::int64 i = 0; i < systems * NC; ++i)
            entry(numbers + i, lane) = coefficients.data[system * NC + i];
        for (wp::int64 i = 0; i < systems * (K + 1); ++i)
            entry(rates + i, lane) = norms.data[system * (K + 1) + i];
        next += threads;
        ++busy;
    };
    auto finish = [&](wp::int64 lane, double status) {
        const wp::int64 z = homes + lane * house, own_row = z + (6 + 2 * MEMORY) * blocks, i = wp::int64(entry(own_row, MEMBER));
        for (wp::int64 k = 0; k < n; ++k) {
            found.data[i * n + k] = entry(z, k);
            slopes.data[i * n + k] = entry(z + 2 * blocks, k);
        }
        summary.data[4 * i] = entry(own_row, COST);
        summary.data[4 * i + 1] = entry(own_row, RESIDUAL);
        summary.data[4 * i + 2] = entry(own_row, ITERATIONS);
        summary.data[4 * i + 3] = status;
        --busy;
        load(lane);
    };
    auto direct = [&](wp::int64 lane) {
        const wp::int64 z = homes + lane * house, g = z + 2 * blocks, way = z + 4 * blocks, open = z + 5 * blocks, pairs = z + 6 * blocks;
        const wp::int64 own_row = pairs + 2 * MEMORY * blocks;
        bool held = false;
        for (wp::int64 i = 0; i < n; ++i) {
            const double slope_i = entry(g, i), here = entry(z, i);
            const bool against = slope_i != 0.0 && clipped(slope_i > 0.0 ? -INFINITY : INFINITY, i) == here;
            entry(open, i) = against ? 0.0 : 1.0;
            entry(way, i) = against ? 0.0 : slope_i;
            held = held || against;
        }
        const double polyak = (wp::abs(entry(own_row, COST)) + 1e-9) / (dot(way, way) + 1e-300);
        const wp::int64 count = wp::int64(entry(own_row, PAIRS)), first = count > MEMORY ? count - MEMORY : 0;
        double gamma = 0.0;
        for (wp::int64 m = count - 1; m >= first; --m) {
            const wp::int64 place = m % MEMORY, s = pairs + 2 * place * blocks, y = s + blocks;
            double rho = entry(own_row, RHO + place);
            if (held) {
                const double sy = dot_free(s, y, open);
                rho = sy > 1e-10 * wp::sqrt(dot_free(s, s, open) * dot_free(y, y, open)) ? 1.0 / sy : 0.0;
            }
            if (rho > 0.0 && gamma == 0.0)
                gamma = 1.0 / (rho * dot_free(y, y, open));
            const double alpha = rho * dot(s, way);
            entry(own_row, NOW + place) = rho;
            entry(own_row, ALPHA + place) = alpha;
            for (wp::int64 b = 0; b < blocks; ++b)
                W(way + b) -= alpha * W(open + b) * W(y + b);
        }
        gamma = gamma > 0.0 ? gamma : polyak;
        for (wp::int64 b = 0; b < blocks; ++b)
            W(way + b) = -gamma * W(way + b);
        for (wp::int64 m = first; m < count; ++m) {
            const wp::int64 place = m % MEMORY, s = pairs + 2 * place * blocks, y = s + blocks;
            const double change = entry(own_row, ALPHA + place) + entry(own_row, NOW + place) * dot(y, way);
            for (wp::int64 b = 0; b < blocks; ++b)
                W(way + b) -= change * W(open + b) * W(s + b);
        }
        if (!(dot(g, way) < 0.0))
            for (wp::int64 b = 0; b < blocks; ++b)
                W(way + b) = -polyak * W(open + b) * W(g + b);
        double far = 1.0;
        for (wp::int64 i = 0; i < n; ++i) {
            const double size = wp::abs(entry(way, i)) / reach.data[wp::int64(entry(own_row, MEMBER))];
            far = size > far ? size : far;
        }
        for (wp::int64 b = 0; b < blocks; ++b)
            W(way + b) *= 1.0 / far;
        entry(own_row, STEP) = 1.0;
        entry(own_row, TRIES) = 0.0;
    };
    auto advance = [&](wp::int64 lane) {
        const wp::int64 z = homes + lane * house, trial = z + blocks, g = z + 2 * blocks, fresh = z + 3 * blocks, way = z + 4 * blocks;
        const wp::int64 pairs = z + 6 * blocks, own_row = pairs + 2 * MEMORY * blocks;
        auto my = [&](wp::int64 which) -> double& { return entry(own_row, which); };
        if (my(MEMBER) < 0.0)
            return;
        for (wp::int64 i = 0; i < n; ++i)
            entry(fresh, i) = entry(slope + i, lane);
        const double now = entry(value, lane);
        bool accepted = my(BEGUN) == 0.0, turn = false;
        if (!accepted) {
            double expected = 0.0;
            for (wp::int64 i = 0; i < n; ++i)
                expected += entry(g, i) * (entry(trial, i) - entry(z, i));
            const double change = now - my(COST);
            accepted = expected < 0.0 && (change <= 1e-4 * expected
                || (wp::abs(change) <= 1e-15 * (1.0 + wp::abs(now)) && residual(trial, fresh) < my(RESIDUAL)));
            if (accepted) {
                const wp::int64 place = wp::int64(my(PAIRS)) % MEMORY, s = pairs + 2 * place * blocks, y = s + blocks;
                for (wp::int64 b = 0; b < blocks; ++b) {
                    W(s + b) = W(trial + b) - W(z + b);
                    W(y + b) = W(fresh + b) - W(g + b);
                }
                const double sy = dot(s, y);
                if (sy > 1e-14 * wp::sqrt(dot(s, s) * dot(y, y))) {
                    my(RHO + place) = 1.0 / sy;
                    my(PAIRS) += 1.0;
                }
                my(ITERATIONS) += 1.0;
            } else if (my(TRIES) < 25.0) {
                const double ratio = -expected / (2.0 * (change - expected));
                my(STEP) *= ratio > 0.1 ? (ratio < 0.5 ? ratio : 0.5) : 0.1;
                my(TRIES) += 1.0;
            } else if (my(PAIRS) > 0.0) {
                my(PAIRS) = 0.0;  // a direction that leads nowhere: forget what it came from
                turn = true;
            } else {
                finish(lane, 1.0);
                return;
            }
        }
        if (accepted) {
            for (wp::int64 b = 0; b < blocks; ++b) {
                W(z + b) = W(trial + b);
                W(g + b) = W(fresh + b);
            }
            my(BEGUN) = 1.0;
            my(COST) = now;
            my(RESIDUAL) = residual(z, g);
            const double status = !(now - now == 0.0) ? 3.0 : now <= target || my(RESIDUAL) <= tolerance ? 0.0
                : my(ITERATIONS) >= max_iterations ? 2.0 : -1.0;
            if (status >= 0.0) {
                finish(lane, status);
                return;
            }
        }
        if (accepted || turn)
            direct(lane);
        for (wp::int64 i = 0; i < n; ++i)
            entry(trial, i) = clipped(entry(z, i) + my(STEP) * entry(way, i), i);
    };
    for (wp::int64 row = 0; row < homes; ++row)
        W(row) = 0.0;
    for (wp::int64 lane = 0; lane < LANES; ++lane)
        load(lane);
    while (busy > 0) {
        evaluate();
        for (wp::int64 lane = 0; lane < LANES; ++lane)
            advance(lane);
    }
