package pool

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// grouped collects what is told of many desktops in one event about their pool.
type grouped struct {
	woken, cooled []int // seats
	why           string
}

// toldTogether: a change is told in one event together with others.
func toldTogether(change Change) bool {
	return change.Reason == ReasonWarmed || change.Reason == ReasonCooled
}

// take notes a change if it is told together with others.
func (g *grouped) take(change Change) {
	switch change.Reason {
	case ReasonWarmed:
		g.woken = append(g.woken, seatNumber(change.Desktop))
	case ReasonCooled:
		g.cooled = append(g.cooled, seatNumber(change.Desktop))
	default:
		return
	}
	g.why = change.Message // one round has one reason
}

func (g *grouped) events(now time.Time, pool *v1.Pool) []store.Op {
	var ops []store.Op
	tell := func(reason, what string, seats []int) {
		if len(seats) == 0 {
			return
		}
		message := fmt.Sprintf("%s %s: %s (%s)", plural(len(seats), "desktop"), what, g.why, seatsWord(seats))
		ops = append(ops, store.Create(store.NewEvent(now, pool, reason, store.Cut(message, maxMessage), false)))
	}
	tell(ReasonWarmed, "woken", g.woken)
	tell(ReasonCooled, "cooled", g.cooled)
	return ops
}

func seatsWord(seats []int) string {
	if len(seats) == 1 {
		return "seat " + ranges(seats)
	}
	return "seats " + ranges(seats)
}

// apart takes the message of such an event apart: what it tells, and the ranges of the seats it tells of.
func apart(message string) (text, seats string) {
	at := strings.LastIndex(message, " (seat")
	if at < 0 {
		return message, ""
	}
	_, seats, _ = strings.Cut(message[at+1:], " ")
	return message[:at], strings.TrimSuffix(seats, ")")
}

// ranges writes numbers in few letters: "1-5, 8".
func ranges(numbers []int) string {
	numbers = slices.Sorted(slices.Values(numbers))
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := fmt.Sprint(numbers[i])
		if j > i {
			part += fmt.Sprintf("-%d", numbers[j])
		}
		parts, i = append(parts, part), j+1
	}
	return strings.Join(parts, ", ")
}
