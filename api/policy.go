package api

import (
	"errors"
	"fmt"
	"time"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// checkPolicy finds what the rules in the .proto cannot say of how a pool moves between versions.
func checkPolicy(spec *v1.PoolSpec) []mistake {
	var mistakes []mistake
	switch floor, seats := spec.GetMinReady(), spec.GetDesktops(); {
	case floor == 0:
	case seats == 0:
		mistakes = append(mistakes, mistake{"spec.desktops", fmt.Sprintf(
			"is 0, and spec.minReady wants %d ready: write how many seats the pool has, or leave spec.minReady out too for a pool without any", floor)})
	case floor >= seats:
		mistakes = append(mistakes, mistake{"spec.minReady", fmt.Sprintf(
			"%d is not less than spec.desktops, %d: no desktop could ever be given another version; lower it, or give the pool more desktops", floor, seats)})
	}
	policy := spec.GetRollout()
	mistakes = append(mistakes, checkWaves(policy.GetWaves(), int(spec.GetDesktops()))...)
	if window := policy.GetWindow(); window != nil {
		mistakes = append(mistakes, checkWindow(window, spec.GetCalendar())...)
		mistakes = append(mistakes, checkNotice(window, policy.GetInUse())...)
	}
	return mistakes
}

// checkNotice: a restart that is announced when the window opens must come before it closes, else it never does.
func checkNotice(window *v1.Window, inUse *v1.InUse) []mistake {
	announces := inUse.GetMode() == v1.InUseMode_IN_USE_MODE_REMIND || inUse.GetDeadline() != nil
	from, err := time.Parse("15:04", window.GetFrom())
	to, toErr := time.Parse("15:04", window.GetTo())
	if !announces || errors.Join(err, toErr) != nil {
		return nil // how they are written is the schema's business
	}
	length := (to.Sub(from) + 24*time.Hour) % (24 * time.Hour)
	notice := pool.NoticeOf(inUse)
	if length == 0 || notice < length {
		return nil
	}
	return []mistake{{"spec.rollout.inUse.notice", fmt.Sprintf(
		"%s is not less than the window, which is open for %s: no announced restart would ever come", rules.Duration(notice), rules.Duration(length))}}
}

// checkWaves looks at the order of waves. One as large as the one before it, in a small pool, is left out when the rollout
// runs; one that is smaller is a mistake.
func checkWaves(waves []string, desktops int) []mistake {
	var mistakes []mistake
	last := 0
	for i, word := range waves {
		field := fmt.Sprintf("spec.rollout.waves[%d]", i)
		size, err := rollout.WaveSize(word, desktops)
		switch {
		case err != nil:
			mistakes = append(mistakes, mistake{field, err.Error()})
			continue
		case i > 0 && sameKind(waves[i-1], word) && !rises(waves[i-1], word):
			mistakes = append(mistakes, mistake{field, fmt.Sprintf("%q is not more than %q before it", word, waves[i-1])})
		case desktops > 0 && size < last:
			mistakes = append(mistakes, mistake{field, fmt.Sprintf("%q is %d of %d desktops, less than the %d of the wave before it", word, size, desktops, last)})
		case i == 0 && (word == "100%" || desktops > 1 && size >= desktops):
			mistakes = append(mistakes, mistake{field, fmt.Sprintf(
				"%q is the whole pool, which has %d desktops: the first wave must leave some, so that a bad version harms few", word, desktops)})
		}
		last = max(last, size)
	}
	return mistakes
}

func isPercent(word string) bool { return word[len(word)-1] == '%' }

func sameKind(a, b string) bool { return isPercent(a) == isPercent(b) }

// rises compares two waves of one kind, both without a leading zero.
func rises(a, b string) bool { return len(a) < len(b) || len(a) == len(b) && a < b }

func checkWindow(window *v1.Window, calendarName string) []mistake {
	var mistakes []mistake
	if window.GetFrom() == window.GetTo() {
		mistakes = append(mistakes, mistake{"spec.rollout.window.to", fmt.Sprintf(
			"%s is also when it begins; leave the window out if the pool may be changed at any time", window.GetTo())})
	}
	const field = "spec.rollout.window.timeZone"
	switch zone := window.GetTimeZone(); {
	case calendarName != "" && zone != "":
		mistakes = append(mistakes, mistake{field, fmt.Sprintf("leave it out: the window is in the time zone of calendar %q", calendarName)})
	case calendarName == "" && zone == "":
		mistakes = append(mistakes, mistake{field, "is needed since the pool has no calendar; write an IANA name such as \"Asia/Tokyo\", or name a calendar in spec.calendar"})
	case zone != "" && !calendar.IsZone(zone):
		mistakes = append(mistakes, mistake{field, fmt.Sprintf("%q is no time zone; write an IANA name such as \"Asia/Tokyo\"", zone)})
	}
	return mistakes
}
