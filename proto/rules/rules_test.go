package rules_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// Fields are written as files have them, bounds as people read them, and a rule of a whole message names its field once.
func TestCheck(t *testing.T) {
	good := func() *v1.Pool {
		return &v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "debian", Zone: "office", Calendar: "office"}}
	}
	pool := func(change func(*v1.PoolSpec)) *v1.Pool {
		p := good()
		change(p.Spec)
		return p
	}
	for name, test := range map[string]struct {
		message proto.Message
		want    []rules.Mistake
	}{
		"nothing wrong": {good(), nil},
		"a count":       {pool(func(s *v1.PoolSpec) { s.MinReady = 5001 }), []rules.Mistake{{"spec.minReady", "must be at most 5000"}}},
		"a target": {pool(func(s *v1.PoolSpec) { s.Schedule = &v1.Schedule{SpareBuffer: "half"} }),
			[]rules.Mistake{{"spec.schedule.spareBuffer", `must be a number of desktops like 10, a share of the seats like 50%, or learned, found "half"`}}},
		"a duration": {pool(func(s *v1.PoolSpec) {
			s.Idle = &v1.IdlePolicy{Closed: &v1.IdleRule{After: durationpb.New(time.Second), Action: v1.IdleAction_IDLE_ACTION_SUSPEND}}
		}), []rules.Mistake{{"spec.idle.closed.after", "must be at least 1m and at most 30d"}}},
		"no action": {pool(func(s *v1.PoolSpec) {
			s.Idle = &v1.IdlePolicy{Open: &v1.IdleRule{After: durationpb.New(time.Hour)}}
		}), []rules.Mistake{{"spec.idle.open.action", "must be set: one of suspend, shut_down, release"}}},
		"a rule that names its field":    {pool(func(s *v1.PoolSpec) { s.Refresh = &v1.RefreshPolicy{Days: 4} }), []rules.Mistake{{"spec.refresh.days", "set it with mode after_days, and only then"}}},
		"a rule that names its path":     {pool(func(s *v1.PoolSpec) { s.Calendar, s.Schedule = "", &v1.Schedule{} }), []rules.Mistake{{"spec.calendar", "a schedule follows a calendar; name one"}}},
		"a path in a request's envelope": {&v1.ApplyRequest{Object: &v1.Object{Kind: &v1.Object_Pool{Pool: pool(func(s *v1.PoolSpec) { s.Calendar, s.Schedule = "", &v1.Schedule{} })}}}, []rules.Mistake{{"object.pool.spec.calendar", "a schedule follows a calendar; name one"}}},
		"nothing that is needed": {pool(func(s *v1.PoolSpec) {
			s.Idle = &v1.IdlePolicy{Open: &v1.IdleRule{Action: v1.IdleAction_IDLE_ACTION_SUSPEND}}
		}), []rules.Mistake{{"spec.idle.open.after", "must be set"}}},
		"an empty text":  {pool(func(s *v1.PoolSpec) { s.Idle = &v1.IdlePolicy{KeepUsers: []string{""}} }), []rules.Mistake{{"spec.idle.keepUsers[0]", "must not be empty"}}},
		"the same twice": {pool(func(s *v1.PoolSpec) { s.Idle = &v1.IdlePolicy{KeepUsers: []string{"a", "a"}} }), []rules.Mistake{{"spec.idle.keepUsers", "must not hold the same twice"}}},
		"no days":        {&v1.Calendar{Meta: &v1.Meta{Name: "a"}, Spec: &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{{Open: "08:30", Close: "09:00"}}}}, []rules.Mistake{{"spec.hours[0].days", "must not be empty"}}},
		"a key of a map": {&v1.Zone{Meta: &v1.Meta{Name: "a", Labels: map[string]string{"a_b c": "x"}}},
			[]rules.Mistake{{`meta.labels["a_b c"]`, "must be of letters, digits, dots, slashes, hyphens and underscores, at most 63, with a letter or digit at both ends"}}},
	} {
		got, err := rules.Check(test.message)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}

// What a word processor or a Japanese keyboard wrote is pointed out.
func TestFound(t *testing.T) {
	for text, want := range map[string]string{
		"half": `"half"`, "窓口": `"窓口"`, "“50%”": `"“50%”" (with quotation marks that YAML does not know as such: write " or ')`,
		"８：００": `"８：００" (in full-width characters: write half-width ones)`, "08:30　": "\"08:30\\u3000\" (in full-width characters: write half-width ones)",
		"a\x1b[2J": `"a\x1b[2J"`, strings.Repeat("あ", 41): `"` + strings.Repeat("あ", 40) + `…"`,
	} {
		if got := rules.Found(text); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for length, want := range map[time.Duration]string{
		0: "0s", 60 * time.Second: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 61 * time.Minute: "1h1m", time.Hour + time.Second: "1h0m1s",
		30 * day: "30d", day + 90*time.Minute: "1d1h30m", day + time.Second: "1d1s", -time.Minute: "-1m", 1500 * time.Millisecond: "1.5s", 10 * time.Minute: "10m", 20 * time.Hour: "20h",
	} {
		if got := rules.Duration(length); got != want {
			t.Errorf("%d: %s, want %s", length, got, want)
		}
		if back, ok := rules.ParseDuration(want); !ok || back != length {
			t.Errorf("%s is read as %v, %v", want, back, ok)
		}
	}
}
