
    const wp::int64 last = steps * RECORD;
    <lanes>
    {
        $cost_new = $logs_new = $gaps_new = 0.0;
        $distance = $step_low = $step_high = 1.0;
        <start>
    }
    for (wp::int64 k = 0; k < steps; ++k) {
        const wp::int64 row = k * RECORD;
        <lanes>
        {
            const double t = $start_time + double(k) * dt;
            <stage>
        }
        if (k % 4 == 3 || k == steps - 1)
            for (wp::int64 lane = 0; lane < LANES; ++lane) {
                if ($barrier > 0.0)
                    $logs_new += wp::log($distance);
                $distance = 1.0;
            }
    }
    <lanes>
    {
        const double t = $start_time + double(steps) * dt;
        <end>
    }
