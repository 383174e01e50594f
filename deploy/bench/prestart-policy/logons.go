package main

import (
	"math"
	"math/rand/v2"
	"time"

	"daybreak/orchestrator/calendar"
)

// logons are those of one day of a pool: who comes, when, and for how long.
func (h *house) logons(random *rand.Rand, d calendar.Day, users int, midnight second, heavy bool) (list []claim) {
	if len(d.Openings) == 0 {
		for range users { // somebody always works
			if random.Float64() < 0.004 {
				begins := midnight + 10*hour + random.Int64N(5*hour)
				list = append(list, claim{begins, begins + 30*minute + random.Int64N(2*hour)})
			}
		}
		return list
	}
	add := func(begins, ends second) {
		if ends > begins+minute {
			list = append(list, claim{midnight + begins, midnight + ends})
		}
	}
	share := h.presence(random, d, heavy)
	if h.kind == "counter" {
		for range int(float64(users) * share * 2.5) {
			begins := h.arrival(random, 0.15)
			add(begins, begins+15*minute+random.Int64N(60*minute))
		}
		return list
	}
	if h.kind == "class" {
		if on := d.Date.Weekday(); on == time.Tuesday || on == time.Thursday {
			for range int(float64(users) * share) {
				add(10*hour-4*minute+random.Int64N(6*minute), 12*hour+random.Int64N(10*minute))
			}
		}
		share *= 0.2
	}
	for range users {
		if random.Float64() >= share {
			continue
		}
		begins, ends := h.arrival(random, 0.53), closes+second(25*60*random.NormFloat64())+10*minute
		if random.Float64() < 0.2 {
			ends -= random.Int64N(5 * hour)
		}
		if out := 12*hour + random.Int64N(10*minute); random.Float64() < 0.2 && begins < out-hour && ends > out+2*hour {
			add(begins, out)
			begins = 13*hour - random.Int64N(12*minute)
		}
		add(begins, min(ends, 22*hour))
	}
	return list
}

// presence is the share of the users who come.
func (h *house) presence(random *rand.Rand, d calendar.Day, heavy bool) float64 {
	share := 0.80 + 0.04*random.NormFloat64()
	switch {
	case d.Date.String() == typhoonDay:
		return 0.12
	case d.Special:
		return 0.35
	case heavy: // Mondays, and days after holidays
		share += 0.1
	case d.Date.Weekday() == time.Friday:
		share -= 0.05
	}
	first, err := calendar.ParseDate(firstDay)
	if err == nil {
		weeks := float64(d.Date.At(0, time.UTC).Sub(first.At(0, time.UTC))/(24*time.Hour)) / 7
		switch h.kind {
		case "growing":
			share *= 0.6 * math.Pow(1.04, weeks)
		case "shrinking":
			share *= math.Pow(0.96, weeks)
		}
	}
	return min(1, max(0, share))
}

// arrival is when somebody comes: a share in the middle sixth of the opening hour, some before it opens.
func (h *house) arrival(random *rand.Rand, sixth float64) second {
	switch r := random.Float64(); {
	case r < sixth:
		return sixthBegins + random.Int64N(sixthEnds-sixthBegins)
	case r < sixth+0.03:
		return opens - random.Int64N(20*minute)
	case r < sixth+(1-sixth)*0.5:
		return opens + random.Int64N(hour)
	}
	return opens + random.Int64N(7*hour)
}
