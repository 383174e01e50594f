package pool

import (
	"testing"

	v1 "daybreak/proto/daybreak/v1"
)

// What is told of desktops together names their seats, so that it is found again for each of them.
func TestToldTogether(t *testing.T) {
	for want, seats := range map[string][]int{
		"1 desktop woken: it is time (seat 4)": {4}, "3 desktops woken: it is time (seats 4-5, 8)": {8, 4, 5},
	} {
		w := newWorld(1)
		ops := (&grouped{woken: seats, why: "it is time"}).events(w.now, w.pool)
		if len(ops) != 1 {
			t.Fatalf("%d events", len(ops))
		}
		event, ok := ops[0].Object.(*v1.Event)
		if !ok || event.GetMessage() != want {
			t.Errorf("%v, want %q", ops[0].Object, want)
		}
		text, named := apart(event.GetMessage())
		for seat := range 10 {
			if told := seat == 4 || len(seats) > 1 && (seat == 5 || seat == 8); inRanges(named, seat) != told {
				t.Errorf("%q names seat %d: %v", named, seat, !told)
			}
		}
		if text+" (seat" != want[:len(text)+6] {
			t.Errorf("text %q", text)
		}
	}
}
