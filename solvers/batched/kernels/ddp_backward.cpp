
    const wp::int64 last = steps * RECORD;
    <lanes>
    {
        const double t = $start_time + double(steps) * dt;
        <end>
        $change0 = $change1 = $change2 = $residual = $complement = 0.0;
        $pivot = INFINITY;
    }
    for (wp::int64 k = steps - 1; k >= 0; --k) {
        const wp::int64 row = k * RECORD;
        <lanes>
        {
            const double t = $start_time + double(k) * dt;
            <stage>
        }
    }
