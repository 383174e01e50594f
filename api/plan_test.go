package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// openDaily is a site with one host, and a pool of so many seats that follows an office which opens at 08:30 every day.
func (r *rig) openDaily(seats, room uint32) {
	const digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	r.put(store.WriterAPI,
		&v1.Zone{Meta: &v1.Meta{Name: "internet"}, Spec: &v1.ZoneSpec{}},
		&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Hours: []*v1.OfficeHours{
			{Days: []v1.Weekday{1, 2, 3, 4, 5, 6, 7}, Open: "08:30", Close: "17:15"},
		}}},
		&v1.Image{Meta: &v1.Meta{Name: "debian"}, Spec: &v1.ImageSpec{}},
		&v1.Host{Meta: &v1.Meta{Name: "kvm1"}},
		&v1.Pool{Meta: &v1.Meta{Name: "counter"}, Spec: &v1.PoolSpec{
			Image: "debian", Zone: "internet", Desktops: seats, Calendar: "office", Schedule: &v1.Schedule{SpareBuffer: "0"},
		}},
		&v1.Pool{Meta: &v1.Meta{Name: "always"}, Spec: &v1.PoolSpec{Image: "debian", Zone: "internet", Desktops: 4}})
	edit(r, store.WriterRollout, "debian", func(i *v1.Image) {
		i.Status = &v1.ImageStatus{Current: 1, Versions: []*v1.ImageVersion{{
			Number: 1, Digest: digest, SizeBytes: 1 << 30, State: v1.VersionState_VERSION_STATE_READY,
		}}}
	})
	edit(r, store.WriterDispatch, "kvm1", func(h *v1.Host) {
		h.Status = &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"internet"}, Images: []string{digest},
			Capacity: &v1.HostCapacity{Cpus: 64, MemoryMib: uint64(room)*1024*16/15 + 16, StoreBytes: 1 << 40, MaxBoots: 4, Kvm: true},
			Usage:    &v1.HostUsage{StoreAvailableBytes: 1 << 40},
		}
	})
	r.caughtUp()
}

// inTokyo is the date so many days from today.
func inTokyo(days int) calendar.Date {
	return calendar.DateOf(time.Now().In(time.FixedZone("JST", 9*3600))).Add(days)
}

func TestPlanDryRun(t *testing.T) {
	r := newRig(t)
	r.openDaily(10, 8)
	client := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_VIEWER))
	for _, ahead := range []int{2, 30, 365} {
		date := inTokyo(ahead).String()
		answer, err := client.Plan(t.Context(), &v1.PlanRequest{Pool: "counter", Date: date})
		if err != nil {
			t.Fatal(err)
		}
		plan := answer.GetPlan()
		if !answer.GetDryRun() || plan.GetDate() != date || plan.GetTimeZone() != "Asia/Tokyo" || len(plan.GetStarts()) != 8 {
			t.Errorf("%v days ahead: %v", ahead, answer)
		}
		if s := plan.GetShortfalls(); len(s) != 1 || s[0].GetDesktops() != 2 || !strings.Contains(s[0].GetReason(), "memory") {
			t.Errorf("%v days ahead: shortfalls %v", ahead, s)
		}
		if !strings.Contains(answer.GetSummary(), "2 desktops will not be ready by 08:30") {
			t.Error(answer.GetSummary())
		}
		points := answer.GetPoints()
		if last := points[len(points)-1]; len(points) < 3 || points[0].GetPlanned() != 0 || last.GetReady() != 0 {
			t.Error(points)
		}
	}
	next, err := client.Plan(t.Context(), &v1.PlanRequest{Pool: "counter"})
	if err != nil {
		t.Fatal(err)
	}
	if len(next.GetPlan().GetStarts()) == 0 {
		t.Error("nothing starts on the next date on which something does:", next)
	}
}

// hold makes so many desktops of pool counter, ready on kvm1, each with a user.
func (r *rig) hold(n int) {
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("counter-%d", i)
		r.put(store.WriterPool, &v1.Desktop{
			Meta: &v1.Meta{Name: name},
			Spec: &v1.DesktopSpec{Pool: "counter", Zone: "internet", Mac: fmt.Sprintf("52:54:00:00:00:%02x", i), VmUuid: fmt.Sprintf("00000000-0000-4000-8000-%012d", i)},
			Incarnation: &v1.Incarnation{
				Generation: 1, Image: "debian", Version: 1, Digest: strings.Repeat("a", 64), Desired: v1.DesiredState_DESIRED_STATE_READY,
				Created: timestamppb.Now(), Shape: &v1.Shape{Vcpus: 1, MemoryMib: 1024},
			},
			Claim: &v1.DesktopClaim{User: fmt.Sprint("user", i), Since: timestamppb.Now()},
		})
		edit(r, store.WriterPlacement, name, func(d *v1.Desktop) { d.Incarnation.Host = "kvm1" })
		edit(r, store.WriterDispatch, name, func(d *v1.Desktop) {
			d.Status = &v1.DesktopStatus{Generation: 1, State: v1.DesktopState_DESKTOP_STATE_READY}
		})
	}
	r.caughtUp()
}

// Who holds a desktop now is not there on a day to come, and its plan says that this is assumed. In a dedicated pool a desktop stays its
// user's, and runs on.
func TestPlanAheadOfClaims(t *testing.T) {
	r := newRig(t)
	r.openDaily(10, 12)
	r.hold(10)
	for _, mode := range []v1.ClaimMode{v1.ClaimMode_CLAIM_MODE_FLOATING, v1.ClaimMode_CLAIM_MODE_DEDICATED} {
		starts, words := 10, "10 desktops start on 1 host, the first at 08:15, and are ready by 08:30. It assumes that the 10 claims of now have ended by then."
		if mode == v1.ClaimMode_CLAIM_MODE_DEDICATED {
			starts, words = 0, "has nothing to start: the 10 desktops that are to run do so already."
		}
		edit(r, store.WriterAPI, "counter", func(p *v1.Pool) { p.Spec.Claims = &v1.ClaimPolicy{Mode: mode} })
		r.caughtUp()
		view := r.mirror.View()
		found, _ := store.Lookup[*v1.Pool](view, "counter")
		day := planDay{view: view, pool: found, demand: pool.DemandOf(view, found)}
		day.zone = day.demand.Calendar.Zone()
		for _, hour := range []int{2, 8, 12, 17, 23} {
			date := inTokyo(0)
			day.now = time.Date(date.Year, date.Month, date.Day, hour, 14, 0, 0, day.zone)
			for _, days := range []int{1, 2, 30} {
				answer, err := day.on(date.Add(days))
				if err != nil {
					t.Fatal(err)
				}
				if len(answer.GetPlan().GetStarts()) != starts || len(answer.GetPlan().GetShortfalls()) != 0 || !strings.HasSuffix(answer.GetSummary(), words) {
					t.Errorf("%v, at %d:14, %d days ahead: %d start: %s", mode, hour, days, len(answer.GetPlan().GetStarts()), answer.GetSummary())
				}
			}
		}
	}
}

// The stored plan of a day to come goes by what users hold now, and says so; that of today needs not, nor one of a dedicated pool.
func TestStoredPlanOfClaims(t *testing.T) {
	r := newRig(t)
	r.openDaily(10, 12)
	r.hold(10)
	for _, days := range []int{0, 1} {
		date := inTokyo(days).String()
		r.put(store.WriterPool, &v1.Plan{Meta: &v1.Meta{Name: pool.PlanName("counter", date)}, Pool: "counter", Date: date, TimeZone: "Asia/Tokyo"})
	}
	r.caughtUp()
	for _, row := range []struct {
		mode v1.ClaimMode
		days int
		said bool
	}{{v1.ClaimMode_CLAIM_MODE_FLOATING, 1, true}, {v1.ClaimMode_CLAIM_MODE_FLOATING, 0, false}, {v1.ClaimMode_CLAIM_MODE_DEDICATED, 1, false}} {
		edit(r, store.WriterAPI, "counter", func(p *v1.Pool) { p.Spec.Claims = &v1.ClaimPolicy{Mode: row.mode} })
		r.caughtUp()
		answer, err := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_VIEWER)).Plan(t.Context(), &v1.PlanRequest{Pool: "counter", Date: inTokyo(row.days).String()})
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.HasSuffix(answer.GetSummary(), " It assumes that the 10 claims of now last until then."); said != row.said || answer.GetDryRun() {
			t.Errorf("%v: %s", row, answer.GetSummary())
		}
	}
}

// On a host whose store is full nothing starts, and the plan says so.
func TestPlanOfAFullStore(t *testing.T) {
	r := newRig(t)
	r.openDaily(10, 12)
	edit(r, store.WriterDispatch, "kvm1", func(h *v1.Host) { h.Status.Usage.StoreAvailableBytes = 0 })
	r.caughtUp()
	answer, err := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_VIEWER)).Plan(t.Context(), &v1.PlanRequest{Pool: "counter", Date: inTokyo(2).String()})
	if err != nil {
		t.Fatal(err)
	}
	const why = "10 desktops will not be ready by 08:30, nor later: the hosts of 10 cold desktops start nothing: kvm1 has 0 MiB of its store free, and nothing starts below 1024"
	if len(answer.GetPlan().GetStarts()) != 0 || !strings.Contains(answer.GetSummary(), why) {
		t.Errorf("%d start; %s", len(answer.GetPlan().GetStarts()), answer.GetSummary())
	}
}

// The next plan is that of the next day on which the schedule asks for more: a wish on a closed day, a span on some weekday.
func TestPlanNext(t *testing.T) {
	r := newRig(t)
	r.openDaily(4, 8)
	client := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_VIEWER))
	tokyo := time.FixedZone("JST", 9*3600)
	noon := func(days int) time.Time {
		date := inTokyo(days)
		return time.Date(date.Year, date.Month, date.Day, 12, 0, 0, 0, tokyo)
	}
	weekday := v1.Weekday((int(inTokyo(5).Weekday())+6)%7 + 1)
	for _, row := range []struct {
		name     string
		schedule *v1.Schedule
		days     int
	}{
		{"nothing ever", &v1.Schedule{Open: "0", SpareBuffer: "0"}, 0},
		{"a wish", &v1.Schedule{Open: "0", SpareBuffer: "0", Extra: []*v1.ExtraTarget{
			{From: timestamppb.New(noon(3)), Until: timestamppb.New(noon(4)), Target: 2}}}, 3},
		{"a weekday", &v1.Schedule{Open: "0", SpareBuffer: "0", Spans: []*v1.TargetSpan{
			{Days: []v1.Weekday{weekday}, From: "00:00", To: "10:00", Target: "2"}}}, 5},
	} {
		edit(r, store.WriterAPI, "counter", func(p *v1.Pool) { p.Spec.Schedule = row.schedule })
		r.caughtUp()
		answer, err := client.Plan(t.Context(), &v1.PlanRequest{Pool: "counter"})
		if err != nil || answer.GetPlan().GetDate() != inTokyo(row.days).String() || len(answer.GetPlan().GetStarts()) == 0 != (row.days == 0) {
			t.Errorf("%s: %v, %v; want %v", row.name, answer, err, inTokyo(row.days))
		}
	}
}

// What is stored is told as it is, with what became of it.
func TestPlanStored(t *testing.T) {
	r := newRig(t)
	r.openDaily(4, 8)
	yesterday := inTokyo(-1)
	open := time.Date(yesterday.Year, yesterday.Month, yesterday.Day, 8, 30, 0, 0, time.FixedZone("JST", 9*3600))
	plan := &v1.Plan{
		Meta: &v1.Meta{Name: "counter-" + yesterday.String()}, Pool: "counter", Date: yesterday.String(), TimeZone: "Asia/Tokyo",
		Made:    timestamppb.New(open.Add(-12 * time.Hour)),
		Targets: []*v1.PlanTarget{{From: timestamppb.New(open.Add(-8 * time.Hour))}, {From: timestamppb.New(open), Running: 2}},
		Hosts:   []*v1.PlanHost{{Name: "kvm1", Boots: 4, Mean: durationpb.New(20 * time.Second), Quantile: durationpb.New(30 * time.Second), Samples: 9}},
	}
	for seat := range uint32(2) {
		plan.Starts = append(plan.Starts, &v1.PlannedStart{
			Seat: seat + 1, StartAt: timestamppb.New(open.Add(-30 * time.Second)), Deadline: timestamppb.New(open),
			Ready: timestamppb.New(open.Add(time.Duration(seat)*20*time.Second - 10*time.Second)),
		})
	}
	r.put(store.WriterPool, plan)
	r.caughtUp()
	answer, err := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_OPERATOR)).Plan(t.Context(), &v1.PlanRequest{Pool: "counter", Date: yesterday.String()})
	if err != nil {
		t.Fatal(err)
	}
	if answer.GetDryRun() || len(answer.GetPlan().GetStarts()) != 2 || !strings.Contains(answer.GetSummary(), "1 were ready in time, 1 late (the last at 08:30:10)") {
		t.Error(answer)
	}
	points := answer.GetPoints()
	if last := points[len(points)-1]; last.GetReady() != 2 || last.GetPlanned() != 2 || last.GetWanted() != 2 {
		t.Error(points)
	}
}

// Of a day that is over, on which the pool was there, nothing is left after two weeks. Of one within them without a plan it is known
// that nothing was to start.
func TestPlanForgotten(t *testing.T) {
	r := newRig(t)
	r.openDaily(4, 8)
	view := r.mirror.View()
	found, _ := store.Lookup[*v1.Pool](view, "counter")
	old := proto.CloneOf(found)
	old.Meta.Created = timestamppb.New(time.Now().AddDate(-1, 0, 0))
	day := planDay{view: view, pool: old, demand: pool.DemandOf(view, old), now: time.Now()}
	day.zone = day.demand.Calendar.Zone()
	_, err := day.on(inTokyo(-20))
	wantCode(t, err, codes.NotFound, "which is over: plans are kept for two weeks")
	for _, days := range []int{-1, -13} {
		answer, err := day.on(inTokyo(days))
		if err != nil || answer.GetDryRun() || len(answer.GetPlan().GetStarts()) != 0 || !strings.HasSuffix(answer.GetSummary(), "pool counter had nothing to start ahead.") {
			t.Errorf("%d days ago: %v, %v", -days, answer, err)
		}
	}
}

func TestPlanRefusals(t *testing.T) {
	r := newRig(t)
	r.openDaily(4, 8)
	client := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_VIEWER))
	for _, row := range []struct {
		pool, date string
		code       codes.Code
		words      string
	}{
		{"nothing", "", codes.NotFound, "nothing"},
		{"always", "", codes.FailedPrecondition, "has no schedule"},
		{"always", inTokyo(1).String(), codes.FailedPrecondition, "has no schedule"},
		{"counter", inTokyo(-1).String(), codes.NotFound, "there is no plan of pool counter for " + inTokyo(-1).String() + ": the pool was made later, on 20"},
		{"counter", "1970-01-01", codes.NotFound, "the pool was made later"},
		{"counter", "2027-02-29", codes.InvalidArgument, `date: "2027-02-29" is not a date`},
		{"counter", inTokyo(401).String(), codes.InvalidArgument, "too far ahead"},
		{"counter", "9999-12-31", codes.InvalidArgument, "too far ahead"},
		{"counter", "tomorrow", codes.InvalidArgument, "date"},
		{"", "", codes.InvalidArgument, "pool"},
	} {
		_, err := client.Plan(t.Context(), &v1.PlanRequest{Pool: row.pool, Date: row.date})
		wantCode(t, err, row.code, row.words)
	}
	_, err := v1.NewPlanServiceClient(r.asHost("kvm1", "u")).Plan(t.Context(), &v1.PlanRequest{Pool: "counter"})
	wantCode(t, err, codes.Unimplemented)
}

// While a host was not heard since the control plane came back, nobody knows whether its desktops were ready; once it was, the answer does not
// wait until that is written down.
func TestPlanOfUnheardHosts(t *testing.T) {
	r := newRig(t)
	r.openDaily(4, 8)
	r.hold(1)
	open := time.Now().Add(-time.Minute).Truncate(time.Second)
	date := open.In(time.FixedZone("JST", 9*3600)).Format(time.DateOnly)
	r.put(store.WriterPool, &v1.Plan{
		Meta: &v1.Meta{Name: "counter-" + date}, Pool: "counter", Date: date, TimeZone: "Asia/Tokyo",
		Targets: []*v1.PlanTarget{{From: timestamppb.New(open.Add(-time.Hour))}, {From: timestamppb.New(open), Running: 1}},
		Hosts:   []*v1.PlanHost{{Name: "kvm1", Boots: 4, Mean: durationpb.New(20 * time.Second), Quantile: durationpb.New(30 * time.Second)}},
		Starts:  []*v1.PlannedStart{{Seat: 1, StartAt: timestamppb.New(open.Add(-time.Minute)), Deadline: timestamppb.New(open)}},
	})
	client := v1.NewPlanServiceClient(r.as(v1.Role_ROLE_VIEWER))
	for _, row := range []struct {
		unheard bool
		ready   *v1.StateTime
		want    string
	}{
		{true, nil, "0 were ready in time, and of 1 nothing was heard since the control plane came back (host kvm1)."},
		{false, nil, "1 never"},
		{false, &v1.StateTime{State: v1.DesktopState_DESKTOP_STATE_READY, At: timestamppb.New(open.Add(-20 * time.Second))}, "made it: the 1 desktop"},
	} {
		edit(r, store.WriterDispatch, "kvm1", func(h *v1.Host) { h.Status.Unheard = row.unheard })
		edit(r, store.WriterDispatch, "counter-1", func(d *v1.Desktop) {
			d.Status.Times = nil
			if row.ready != nil {
				d.Status.Times = []*v1.StateTime{row.ready}
			}
		})
		r.caughtUp()
		answer, err := client.Plan(t.Context(), &v1.PlanRequest{Pool: "counter", Date: date})
		if err != nil || !strings.Contains(answer.GetSummary(), row.want) || (len(answer.GetUnheard()) == 1) != row.unheard {
			t.Errorf("%v: %q, %v; %v", row, answer.GetSummary(), answer.GetUnheard(), err)
		}
	}
}
