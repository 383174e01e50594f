package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// searched is how many days the schedule is read ahead for the next one on which something starts.
	searched = 14
	// before is how long before a date far ahead a dry run begins: what the pool does on it depends on what ran before.
	before = 24 * time.Hour
	// maxPlanSummary is the proto's bound of PlanResponse.summary.
	maxPlanSummary = 1024
)

// planService tells how pools are warmed up, and how they were.
type planService struct {
	v1.UnimplementedPlanServiceServer
	mirror *store.Mirror
}

// Plan returns the plan of a date: the stored one, or a dry run.
func (s *planService) Plan(ctx context.Context, request *v1.PlanRequest) (*v1.PlanResponse, error) {
	view, err := s.mirror.Wait(ctx, 0)
	if err != nil {
		return nil, err
	}
	object, ok := store.Lookup[*v1.Pool](view, request.GetPool())
	if !ok {
		return nil, fmt.Errorf("plan: %w: pool %s", store.ErrNotFound, request.GetPool())
	}
	day := planDay{view: view, pool: object, demand: pool.DemandOf(view, object), now: time.Now()}
	if day.demand.Calendar != nil {
		day.zone = day.demand.Calendar.Zone()
	}
	if request.GetDate() == "" {
		return day.next()
	}
	date, err := calendar.ParseDate(request.GetDate())
	if err != nil {
		return nil, invalid(mistake{"date", err.Error()})
	}
	return day.on(date)
}

// planDay answers questions about one pool as one view has it.
type planDay struct {
	view   *store.View
	pool   *v1.Pool
	demand demand.Pool
	now    time.Time
	zone   *time.Location // nil when the pool's calendar cannot be read
}

func (d planDay) name() string { return d.pool.GetMeta().GetName() }

// planned refuses what no plan can be made for.
func (d planDay) planned() error {
	switch {
	case d.pool.GetSpec().GetSchedule() == nil:
		return status.Errorf(codes.FailedPrecondition, "pool %s has no schedule: all its desktops run always, and none waits for a time to start. "+
			"Give it spec.calendar and spec.schedule to have it warmed up for opening hours", d.name())
	case d.zone == nil:
		return status.Errorf(codes.FailedPrecondition, "pool %s follows calendar %q, which cannot be read: until that is mended all its desktops run always",
			d.name(), d.pool.GetSpec().GetCalendar())
	}
	return nil
}

// on is the plan of a date.
func (d planDay) on(date calendar.Date) (*v1.PlanResponse, error) {
	if stored, ok := store.Lookup[*v1.Plan](d.view, pool.PlanName(d.name(), date.String())); ok && stored.GetPool() == d.name() {
		answer := d.answer(pool.Noted(d.now, d.view, d.pool, stored), false)
		if d.zone != nil && date.Compare(calendar.DateOf(d.now.In(d.zone))) > 0 {
			answer = withNote(answer, d.lasting())
		}
		return answer, nil
	}
	if err := d.planned(); err != nil {
		return nil, err
	}
	today := calendar.DateOf(d.now.In(d.zone))
	made := d.pool.GetMeta().GetCreated().AsTime().In(d.zone)
	switch last := today.Add(calendar.Horizon); {
	case date.Compare(calendar.DateOf(made)) < 0:
		return nil, status.Errorf(codes.NotFound, "there is no plan of pool %s for %v: the pool was made later, on %s", d.name(), date, made.Format("2006-01-02 at 15:04 MST"))
	case date.Compare(today) < 0 && date.Compare(calendar.DateOf(d.now.UTC()).Add(-pool.KeptPlans)) >= 0:
		return d.answer(d.empty(date), false), nil // it would be kept, had there been anything to start
	case date.Compare(today) < 0:
		return nil, status.Errorf(codes.NotFound, "there is no plan of pool %s for %v, which is over: plans are kept for two weeks, and none is made afterwards", d.name(), date)
	case date.Compare(last) > 0:
		return nil, invalid(mistake{"date", fmt.Sprintf("%v is too far ahead: plans can be tried out until %v", date, last)})
	}
	plan, ended := d.dryRun(date, date.Compare(today) > 0)
	return withNote(d.answer(plan, true), assumed(ended)), nil
}

// next is the plan of the first date on which something is still to start, or of today when nothing is: of days to come, it
// is the first on which the schedule asks for more than before.
func (d planDay) next() (*v1.PlanResponse, error) {
	if err := d.planned(); err != nil {
		return nil, err
	}
	date := calendar.DateOf(d.now.In(d.zone))
	today, err := d.on(date)
	if err != nil || d.starts(today.GetPlan()) {
		return today, err
	}
	midnight := date.Add(1).At(0, d.zone)
	curve := demand.Curve(d.demand, midnight.Add(-time.Minute), midnight.Add(searched*24*time.Hour))
	for i := 1; i < len(curve); i++ {
		if curve[i].Target > curve[i-1].Target {
			return d.on(calendar.DateOf(curve[i].From.In(d.zone)))
		}
	}
	return today, nil
}

// starts: something is still to start, or is missing.
func (d planDay) starts(plan *v1.Plan) bool {
	for _, s := range plan.GetStarts() {
		if s.GetDeadline().AsTime().After(d.now) || !s.GetStartAt().AsTime().Before(d.now) {
			return true
		}
	}
	for _, s := range plan.GetShortfalls() {
		if !s.GetDeadline().AsTime().Before(d.now) {
			return true
		}
	}
	return false
}

// withNote adds a sentence, if any, to the summary of an answer.
func withNote(answer *v1.PlanResponse, note string) *v1.PlanResponse {
	answer.Summary = store.Cut(answer.GetSummary(), maxPlanSummary-len(note)) + note
	return answer
}

// lasting says what the stored plan of a day to come takes for granted of users: it goes by what they hold now. In a dedicated pool a desktop
// stays its user's anyway.
func (d planDay) lasting() string {
	held := 0
	for _, desktop := range d.view.DesktopsOfPool(d.name()) {
		if desktop.GetClaim().GetUser() != "" {
			held++
		}
	}
	switch {
	case held == 0 || d.pool.GetSpec().GetClaims().GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED:
		return ""
	case held == 1:
		return " It assumes that the 1 claim of now lasts until then."
	}
	return fmt.Sprintf(" It assumes that the %d claims of now last until then.", held)
}

// assumed says what a plan ahead takes for granted of users, of whom so many have let go by then.
func assumed(ended int) string {
	switch ended {
	case 0:
		return ""
	case 1:
		return " It assumes that the 1 claim of now has ended by then."
	}
	return fmt.Sprintf(" It assumes that the %d claims of now have ended by then.", ended)
}

// dryRun plans by what is known now. What lies farther ahead than a day is looked at as if it were a day before, with desktops and
// hosts as they are. On days ahead the claims of now are over, but in dedicated pools: ended says how many of the pool.
func (d planDay) dryRun(date calendar.Date, ahead bool) (plan *v1.Plan, ended int) {
	begin := time.Date(date.Year, date.Month, date.Day, 0, 0, 0, 0, d.zone)
	now := begin.Add(-before)
	if now.Before(d.now) {
		now = d.now
	}
	var input warmup.Input
	if until := begin.Add(before + time.Hour); ahead {
		var all map[string]int
		input, all = pool.PlanAhead(d.view, now, until)
		ended = all[d.name()]
	} else {
		input = pool.PlanInput(d.view, now, until)
	}
	for _, planned := range warmup.Plan(now, input).Pools {
		if planned.Name == d.name() {
			return planned.OnDate(date.String(), d.zone, d.now), ended
		}
	}
	return d.empty(date), ended
}

// empty is the plan of a date on which nothing starts.
func (d planDay) empty(date calendar.Date) *v1.Plan {
	return &v1.Plan{Pool: d.name(), Date: date.String(), TimeZone: d.zone.String()}
}

func (d planDay) answer(plan *v1.Plan, dryRun bool) *v1.PlanResponse {
	if dryRun {
		var never time.Time // nothing of it has come
		return &v1.PlanResponse{Plan: plan, DryRun: true, Summary: warmup.Summary(plan, never, nil), Points: warmup.Points(plan, never)}
	}
	unheard := pool.Unheard(d.now, d.view, plan)
	return &v1.PlanResponse{
		Plan: plan, Summary: warmup.Summary(plan, d.now, unheard), Points: warmup.Points(plan, d.now), Unheard: slices.Sorted(maps.Keys(unheard)),
	}
}
