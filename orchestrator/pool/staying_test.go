package pool

import (
	"strings"
	"testing"

	v1 "daybreak/proto/daybreak/v1"
)

// Whoever drains a host hears of each desktop that stays what it waits for, and of those that leave by themselves nothing.
func TestStaying(t *testing.T) {
	suspend := func(d *v1.Desktop) {
		d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesktopState_DESKTOP_STATE_SUSPENDED
	}
	const (
		release = "it leaves once hanako lets go of it, or \"daybreak release sales --user 'hanako'\" ends it with all that is open"
		remove  = "\"daybreak delete desktop sales-1\" ends it, and another is made elsewhere"
	)
	for _, c := range []struct {
		name   string
		held   bool
		change func(p *v1.Pool, d *v1.Desktop)
		want   string
	}{
		{"held", true, nil, "hanako holds it: " + release},
		{"held and suspended", true, func(_ *v1.Pool, d *v1.Desktop) { suspend(d) }, "it is suspended, with what hanako has open in the host's store: " + release},
		{"held and shut down", true, func(_ *v1.Pool, d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_PREPARED, v1.DesktopState_DESKTOP_STATE_PREPARED
		}, "it is shut down, and waits for hanako: " + release},
		{"held for ever", true, func(p *v1.Pool, d *v1.Desktop) {
			p.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_NEVER}
		}, "hanako holds it, and it is not made anew when they let go of it: after that " + remove},
		{"kept for its user", false, func(p *v1.Pool, d *v1.Desktop) {
			p.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_NEVER}
			d.Incarnation.UsedBy = "hanako"
			suspend(d)
		}, "it is suspended, with what hanako has open in the host's store, and kept for them: " + remove},
		{"kept for a week", false, func(p *v1.Pool, d *v1.Desktop) {
			p.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 7}
			d.Incarnation.UsedBy = "hanako"
		}, "it is kept for hanako until 2027-04-12 08:00:00 UTC, when it is made anew elsewhere: before that " + remove},
		{"with a data disk", true, func(_ *v1.Pool, d *v1.Desktop) { d.Spec.DataHost = "h1" }, "its data disk lies there: "},
		{"let go of", false, func(_ *v1.Pool, d *v1.Desktop) { d.Incarnation.UsedBy = "hanako" }, ""},
		{"ending", false, func(_ *v1.Pool, d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED }, ""},
		{"to be deleted, and held", true, func(p *v1.Pool, _ *v1.Desktop) { p.Meta.Deletion = &v1.Deletion{By: "admin"} }, "hanako holds it: " + release},
		{"a spare of a pool that always runs", false, nil, "nobody uses it, and its pool has no schedule by which it would end: " + remove},
		{"a spare of a pool that is cooled", false, func(p *v1.Pool, _ *v1.Desktop) { p.Spec.Schedule = office() }, ""},
		{"failed", false, func(_ *v1.Pool, d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_FAILED }, ""},
	} {
		w := settled(t, 1)
		d := w.desktops["sales-1"]
		if c.held {
			w.claim("sales-1", "hanako")
			d = w.desktops["sales-1"]
		}
		if c.change != nil {
			c.change(w.pool, d)
		}
		got := Staying(w.now, nil, w.pool, d)
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
