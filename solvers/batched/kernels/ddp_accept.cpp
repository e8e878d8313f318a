
    for (wp::int64 k = 0; k < steps; ++k) {
        const wp::int64 row = k * RECORD;
        <lanes>
        {
            const bool taken = $accepted > 0.0;
            const bool inside = taken & ($barrier > 0.0);
            const double rest = taken ? 1.0 - $alpha : 1.0;
            <stage>
        }
    }
