package show_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestPoliciesOfAPool(t *testing.T) {
	hours := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Hour) }
	for want, spec := range map[string]*v1.PoolSpec{
		`
Schedule:  all seats, always
Claims:    floating: any ready desktop
Refresh:   at logoff
`: {},
		`
Schedule:  open 100%; closed 0; Mon,Tue 08:00-10:00 60; 12:00-13:00 50%; spares while open learned, and never fewer than 2
Claims:    floating: any ready desktop; for users who hold fewer than 1 of all pools; at most 5 wait
Refresh:   when a life is 7d old
Idle:      open: suspend after 2h, warned 10m ahead; closed: release after 1h, warned 5m ahead; not those of mayor; not tax-1
`: {
			MinReady: 2,
			Schedule: &v1.Schedule{Spans: []*v1.TargetSpan{
				{Days: []v1.Weekday{v1.Weekday_WEEKDAY_MONDAY, v1.Weekday_WEEKDAY_TUESDAY}, From: "08:00", To: "10:00", Target: "60"},
				{From: "12:00", To: "13:00", Target: "50%"},
			}},
			Claims:  &v1.ClaimPolicy{MaxPerUser: 1, MaxQueued: 5},
			Refresh: &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 7},
			Idle: &v1.IdlePolicy{
				Open:      &v1.IdleRule{After: hours(2), Grace: durationpb.New(10 * time.Minute), Action: v1.IdleAction_IDLE_ACTION_SUSPEND},
				Closed:    &v1.IdleRule{After: hours(1), Action: v1.IdleAction_IDLE_ACTION_RELEASE},
				KeepUsers: []string{"mayor"}, KeepDesktops: []string{"tax-1"},
			},
		},
		`
Schedule:  open learned; closed 10%; spares while open 3
Claims:    dedicated: the first claim binds user and desktop for ever
Refresh:   never, but for another version
Idle:      open: left alone; closed: shut down after 1m, warned 1m ahead
`: {
			Schedule: &v1.Schedule{Open: "learned", Closed: "10%", SpareBuffer: "3"},
			Claims:   &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED},
			Idle:     &v1.IdlePolicy{Closed: &v1.IdleRule{After: durationpb.New(time.Minute), Action: v1.IdleAction_IDLE_ACTION_SHUT_DOWN}},
		},
	} {
		var out bytes.Buffer
		if err := show.Pool(&out, &v1.Pool{Meta: &v1.Meta{Name: "tax"}, Spec: spec}, nil, nil, tokyo()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			if label, _, _ := strings.Cut(line, ":"); strings.Contains("Schedule Claims Refresh Idle", label) && label != "" {
				got = append(got, strings.TrimRight(line, "\n"))
			}
		}
		if text := strings.Join(got, "\n"); text != strings.TrimSpace(want) {
			t.Errorf("%s\nwant %s", text, want)
		}
	}
}

// A desktop that is not to run says whom it waits for, where its host says nothing.
func TestReasonOfSleepers(t *testing.T) {
	for want, d := range map[string]*v1.Desktop{
		"suspended until taro claims it": {
			Claim: &v1.DesktopClaim{User: "taro"}, Incarnation: &v1.Incarnation{Desired: v1.DesiredState_DESIRED_STATE_SUSPENDED},
		},
		"not started until hana claims it": {Spec: &v1.DesktopSpec{Owner: "hana"}, Incarnation: &v1.Incarnation{Desired: v1.DesiredState_DESIRED_STATE_PREPARED}},
		"not needed yet":                   {Incarnation: &v1.Incarnation{Desired: v1.DesiredState_DESIRED_STATE_PREPARED}},
	} {
		d.Incarnation.Host, d.Incarnation.Generation = "kvm1", 7
		d.Status = &v1.DesktopStatus{Generation: 7, State: v1.DesktopState_DESKTOP_STATE_PREPARED}
		if got := show.Reason(d, tokyo()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		d.Status.Message = "the host's word"
		if got := show.Reason(d, tokyo()); got != "the host's word" {
			t.Errorf("%q", got)
		}
	}
}

// A desktop that starts later says when by the clock of who reads it, and not as its host does, which knows no zone but UTC.
func TestReasonTellsTimesOfTheReader(t *testing.T) {
	d := &v1.Desktop{
		Incarnation: &v1.Incarnation{Host: "kvm1", Generation: 7, Desired: v1.DesiredState_DESIRED_STATE_READY, StartAt: before(-time.Minute)},
		Status:      &v1.DesktopStatus{Generation: 7, State: v1.DesktopState_DESKTOP_STATE_PREPARED, Message: "starts at 2026-11-23 23:31:00 UTC"},
	}
	for want, now := range map[string]time.Time{
		"starts at 2026-11-24 08:31:00 JST": tokyo(), "starts at 2026-11-23 23:31:00 UTC": tokyo().UTC(),
		"waits for a place": tokyo().Add(2 * time.Minute),
	} {
		if d.Status.Message = "starts at 2026-11-23 23:31:00 UTC"; strings.HasPrefix(want, "waits") {
			d.Status.Message = want
		}
		if got := show.Reason(d, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// All times of a plan are those of its pool's calendar, wherever it is read.
func TestPlansTellTimesOfTheirPool(t *testing.T) {
	p := &v1.Plan{Meta: &v1.Meta{Name: "a-2026-11-24"}, TimeZone: "Asia/Tokyo", Made: before(time.Hour), Starts: []*v1.PlannedStart{{StartAt: before(0)}}}
	row := show.Objects(v1.Kind_KIND_PLAN, []store.Object{p}, false, tokyo().UTC()).Rows[0]
	if row[4] != "08:30:00 JST" || row[8] != "2026-11-24 07:30:00 JST (1h ago)" {
		t.Errorf("first start %q, made %q", row[4], row[8])
	}
}

// A desktop that comes to a state again is in it since then, and describe tells both. An older agent does not say since when:
// then no other time stands in its place.
func TestSinceIsOfThePresentState(t *testing.T) {
	d := &v1.Desktop{
		Meta: &v1.Meta{Name: "tax-1"}, Incarnation: &v1.Incarnation{Host: "kvm1", Generation: 7},
		Status: &v1.DesktopStatus{Generation: 7, State: v1.DesktopState_DESKTOP_STATE_SUSPENDED, Times: []*v1.StateTime{
			{State: v1.DesktopState_DESKTOP_STATE_READY, At: before(time.Hour)}, {State: v1.DesktopState_DESKTOP_STATE_SUSPENDED, At: before(time.Minute)},
		}},
	}
	since := func() string {
		table := show.Objects(v1.Kind_KIND_DESKTOP, []store.Object{d}, true, tokyo())
		return table.Rows[0][slices.Index(table.Header, "SINCE")]
	}
	if got := since(); got != "1m" {
		t.Errorf("suspended since %q", got)
	}
	if d.Status.State = v1.DesktopState_DESKTOP_STATE_READY; since() != "" && since() != "-" {
		t.Errorf("ready again since %q", since())
	}
	if d.Status.Since = before(9 * time.Second); since() != "9s" {
		t.Errorf("ready again since %q", since())
	}
	var page strings.Builder
	if err := show.Desktop(&page, d, nil, tokyo()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.String(), "READY again") || !strings.Contains(page.String(), "(9s ago)") || strings.Count(page.String(), "again") != 1 {
		t.Errorf("described as %s", page.String())
	}
}
