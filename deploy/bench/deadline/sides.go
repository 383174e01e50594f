package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"daybreak/deploy/bench/onehost"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// nightBefore is how long before the opening Daybreak hears of it: it must have made its plan before the first start, and a
// cold desktop takes a few seconds to be prepared.
const nightBefore = 4 * time.Minute

// warmUp lets Daybreak warm the pool for an opening, and cools it down afterwards.
func warmUp(ctx context.Context, lab *onehost.Lab, desktops int) (o outcome, err error) {
	// Calendars count in minutes. UTC's midnight is avoided by waiting for it to pass.
	o.deadline = time.Now().UTC().Add(nightBefore).Truncate(time.Minute).Add(time.Minute)
	closes := o.deadline.Add(10 * time.Minute)
	if closes.Day() != o.deadline.Day() || o.deadline.Day() != time.Now().UTC().Day() {
		if err := sleepUntil(ctx, closes.Truncate(24*time.Hour).Add(time.Minute)); err != nil {
			return o, err
		}
		return warmUp(ctx, lab, desktops)
	}
	if err := lab.Apply(ctx, doors(o.deadline, closes)+"---\n"+onehost.Pool(desktops, "  calendar: doors\n  schedule: {open: \"100%\", closed: \"0\"}\n")); err != nil {
		return o, err
	}
	if err := sleepUntil(ctx, o.deadline); err != nil {
		return o, err
	}
	found, err := lab.Await(ctx, func(found []*v1.Desktop) bool {
		return len(found) == desktops && readyCount(found) == desktops
	})
	if err != nil {
		return o, err
	}
	for _, desktop := range found {
		at, err := readyAt(desktop)
		if err != nil {
			return o, err
		}
		o.ready = append(o.ready, at)
		if start := desktop.GetIncarnation().GetStartAt().AsTime(); o.first.IsZero() || start.Before(o.first) {
			o.first = start
		}
		o.work += store.Present(desktop).GetBoot().GetTook().AsDuration()
	}
	if slices.ContainsFunc(o.ready, o.deadline.Before) {
		tell(o.deadline, found)
	}
	return o, lab.Empty(ctx)
}

// tell says how each start went, for who wants to know why some were late.
func tell(deadline time.Time, found []*v1.Desktop) {
	after := func(at time.Time) float64 { return at.Sub(deadline).Seconds() }
	for _, desktop := range found {
		boot := store.Present(desktop).GetBoot()
		began, _ := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_STARTING)
		ready, _ := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
		fmt.Fprintf(os.Stderr, "  %s: planned %+.1f s, began %+.1f s, ready %+.1f s; %d booted at once\n", desktop.GetMeta().GetName(),
			after(desktop.GetIncarnation().GetStartAt().AsTime()), after(began), after(ready), boot.GetAtOnce())
	}
}

// doors is a calendar that opens once.
func doors(opens, closes time.Time) string {
	return fmt.Sprintf(`kind: calendar
meta: {name: doors}
spec:
  timeZone: UTC
  openings: [{date: "%s", open: "%s", close: "%s"}]
`, opens.Format(time.DateOnly), opens.Format("15:04"), closes.Format("15:04"))
}

func readyCount(found []*v1.Desktop) int {
	n := 0
	for _, desktop := range found {
		if store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY {
			n++
		}
	}
	return n
}

func readyAt(desktop *v1.Desktop) (time.Time, error) {
	at, ok := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
	if !ok {
		return at, fmt.Errorf("desktop %s is ready and does not say since when", desktop.GetMeta().GetName())
	}
	return at, nil
}

// fromScript begins some time before its deadline.
func fromScript(ctx context.Context, script *onehost.Script, desktops, atOnce int, lead time.Duration) (outcome, error) {
	o := outcome{deadline: time.Now().Add(lead)}
	ready, err := script.Run(ctx, desktops, atOnce)
	if err != nil {
		return o, err
	}
	o.ready = ready
	return o, script.Clear(ctx)
}

func sleepUntil(ctx context.Context, at time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(at)):
		return nil
	}
}
