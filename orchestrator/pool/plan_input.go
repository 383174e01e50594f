package pool

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// usualFetchRate is what a host is taken to fetch of an image in a second, bytes.
const usualFetchRate = 50 << 20

// PlanInput is what a warm-up plan is made of: all pools with a schedule, and the hosts that they share, as the view has
// them. Targets before until are looked at.
func PlanInput(view *store.View, now, until time.Time) warmup.Input {
	return newInput(view, now, until).fill(func(pool *v1.Pool) []demand.Step {
		return demand.Curve(DemandOf(view, pool), now, until)
	})
}

// PlanAhead is PlanInput for a day to come: what users hold now of pools that are not dedicated, or wait for, is taken to be let go of
// by then, with what such a pool does with a desktop after that. ended says how many desktops of each pool that are. When users
// really go nobody knows, and a claim that nobody ends holds for ever.
func PlanAhead(view *store.View, now, until time.Time) (planned warmup.Input, ended map[string]int) {
	in := newInput(view, now, until)
	in.ended = map[string]int{}
	planned = in.fill(func(pool *v1.Pool) []demand.Step { return demand.Curve(DemandOf(view, pool), now, until) })
	return planned, in.ended
}

// newInput is an empty work sheet that knows what there is to know of starts and hosts.
func newInput(view *store.View, now, until time.Time) *input {
	given := warmup.Input{Until: until, Model: warmup.Learn(store.All[*v1.History](view), imagesOf(view))}
	return &input{Input: given, view: view, now: now, rooms: room.Of(view), hosts: map[string]*hostOfPlan{}}
}

// planInput is PlanInput with what is known already: the end and the model of in, what hosts have, and the pools' curves.
func planInput(view *store.View, now time.Time, given warmup.Input, rooms []*room.Host, curveOf func(*v1.Pool) []demand.Step) warmup.Input {
	in := &input{Input: given, view: view, now: now, rooms: rooms, hosts: map[string]*hostOfPlan{}}
	return in.fill(curveOf)
}

// fill enters all hosts and pools.
func (in *input) fill(curveOf func(*v1.Pool) []demand.Step) warmup.Input {
	for _, h := range in.rooms {
		in.addHost(h)
	}
	for _, pool := range store.All[*v1.Pool](in.view) {
		if pool.GetSpec().GetSchedule() != nil && pool.GetMeta().GetDeletion() == nil {
			in.addPool(pool, curveOf(pool))
		}
	}
	for _, h := range in.rooms { // in order, with what the seats of the plan give back
		if known := in.hosts[h.Name()]; known != nil {
			in.Hosts = append(in.Hosts, known.Host)
		}
	}
	return in.Input
}

// input is the work sheet of planInput.
type input struct {
	warmup.Input
	view  *store.View
	now   time.Time
	rooms []*room.Host
	hosts map[string]*hostOfPlan
	// ended counts, by pool, the claims that are taken to be over; nil when claims hold.
	ended map[string]int
}

type hostOfPlan struct {
	warmup.Host
	placeable bool // takes new lives, too
}

// addHost enters a host that desktops can start on.
func (in *input) addHost(h *room.Host) {
	capacity := h.GetStatus().GetCapacity()
	up := h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP && h.GetMeta().GetDeletion() == nil && !h.Strangers
	if !up || !capacity.GetKvm() && !capacity.GetEmulation() {
		return
	}
	closed := ""
	if free, floor, full := room.StoreFull(h.Host); full {
		closed = fmt.Sprintf("has %d MiB of its store free, and nothing starts below %d", free, floor)
	}
	in.hosts[h.Name()] = &hostOfPlan{
		Host: warmup.Host{
			Name: h.Name(), Class: warmup.HostClass(capacity), Boots: h.MaxBoots,
			MemoryMiB: h.FreeMemoryMiB, VCPUs: h.FreeVCPUs, Images: map[string]time.Time{}, Closed: closed,
			ReadRate: h.GetStatus().GetUsage().GetStoreReadRate(),
		},
		placeable: !h.GetSpec().GetUnschedulable(),
	}
}

// addPool enters a pool with its seats, and gives the hosts back what those take: the plan counts it itself.
func (in *input) addPool(object *v1.Pool, curve []demand.Step) {
	d := in.look(object, curve)
	wanted := shape(object.GetSpec().GetShape())
	pool := warmup.Pool{
		Name: object.GetMeta().GetName(), Image: object.GetSpec().GetImage(), Digest: digestOf(in.view, object),
		Readiness: readinessDeadline(object), MemoryMiB: int64(wanted.GetMemoryMib()), VCPUs: int64(wanted.GetVcpus()), Hosts: []string{},
	}
	for _, h := range in.rooms {
		known := in.hosts[h.Name()]
		if known == nil || !known.placeable || !h.Zones[object.GetSpec().GetZone()] {
			continue
		}
		pool.Hosts = append(pool.Hosts, h.Name())
		if digest := pool.Digest; digest != "" && !h.Images[digest] {
			known.Images[digest] = in.now.Truncate(time.Minute).Add(in.fetchTime(object, digest))
		}
	}
	lost := map[string]int{}
	if d.base.version != nil {
		pool.Seats = unmade(d)
	} else {
		lost["not made yet"] += len(unmade(d))
	}
	for _, desktop := range d.Desktops {
		seat, why := in.seatOf(d, desktop)
		if why != "" {
			lost[why]++
			continue
		}
		if digest := desktop.GetIncarnation().GetDigest(); digest != pool.Digest {
			seat.Digest = digest
		}
		pool.Seats = append(pool.Seats, seat)
	}
	pool.Targets = d.planTargets(len(pool.Seats), lost[sleeps])
	delete(lost, sleeps)
	for why, n := range lost {
		if n > 0 && (pool.LostWhy == "" || n > lost[pool.LostWhy] || n == lost[pool.LostWhy] && why < pool.LostWhy) {
			pool.LostWhy = why
		}
		pool.Lost += n
	}
	in.Pools = append(in.Pools, pool)
}

// sleeps is what seatOf says of a desktop that is there for its user, and runs when they are back.
const sleeps = "asleep until their users are back"

// planTargets are what a plan is made for, when so many seats run or could be started, and so many others sleep until their users are
// back. Those are there for them and nothing is missing in their place; but a seat that could be started is not left cold for one that sleeps.
func (d *decision) planTargets(startable, asleep int) (targets []warmup.Target) {
	seats, told := int(d.Pool.GetSpec().GetDesktops()), targetsOf(d.Plans)
	for _, step := range d.Curve {
		wanted, reason := step.Wanted(d.held+d.kept, seats), step.Why(d.held, d.kept, seats)
		running := min(wanted, max(startable, d.awake(step, asleep)))
		if running < wanted {
			reason += fmt.Sprintf(", less %d that %s", wanted-running, sleeping(wanted-running))
		}
		target := warmup.Target{From: step.From, Running: running, Reason: reason}
		target.Since = since(told, target, d.now)
		if n := len(targets); n > 0 && targets[n-1].Running == target.Running && targets[n-1].Reason == target.Reason {
			continue
		}
		targets = append(targets, target)
	}
	return targets
}

// targetsOf are those of all plans, in order.
func targetsOf(plans []*v1.Plan) []*v1.PlanTarget {
	var all []*v1.PlanTarget
	for _, plan := range plans {
		all = append(all, plan.GetTargets()...)
	}
	slices.SortStableFunc(all, func(a, b *v1.PlanTarget) int { return a.GetFrom().AsTime().Compare(b.GetFrom().AsTime()) })
	return all
}

// since is when plans told first that so many are wanted then: now, when they do not yet; zero, when that is not written down.
func since(told []*v1.PlanTarget, target warmup.Target, now time.Time) time.Time {
	i, same := slices.BinarySearchFunc(told, target.From, func(t *v1.PlanTarget, at time.Time) int { return t.GetFrom().AsTime().Compare(at) })
	if !same {
		i--
	}
	switch {
	case i < 0 || int(told[i].GetRunning()) < target.Running:
		return now
	case told[i].GetSince() == nil:
		return time.Time{}
	}
	return told[i].GetSince().AsTime()
}

// look reads a pool as Decide does, without the record of failures.
func (in *input) look(object *v1.Pool, curve []demand.Step) *decision {
	name := object.GetMeta().GetName()
	s := Snapshot{
		Revision: in.view.Revision, Pool: object, Desktops: in.view.DesktopsOfPool(name), Curve: curve, Queue: queueOf(in.view, name),
		Hosts: hostsOf(in.view), Plans: plansOf(in.view, object),
	}
	if in.ended != nil && !isDedicated(object) {
		s.Queue, s.Desktops = nil, in.letGo(name, s.Desktops)
	}
	s.Image, _ = store.Lookup[*v1.Image](in.view, object.GetSpec().GetImage())
	_, s.ZoneExists = store.Lookup[*v1.Zone](in.view, object.GetSpec().GetZone())
	d := newDecision(in.now, s)
	d.weigh(nil)
	return d
}

// letGo returns the desktops of a pool as they are when their users have let go of them.
func (in *input) letGo(pool string, desktops []*v1.Desktop) []*v1.Desktop {
	desktops = slices.Clone(desktops)
	for i, desktop := range desktops {
		user := desktop.GetClaim().GetUser()
		if user == "" {
			continue
		}
		in.ended[pool]++
		desktops[i] = proto.CloneOf(desktop)
		desktops[i].Claim, desktops[i].Incarnation.UsedBy = nil, user
	}
	return desktops
}

// unmade are the seats that are still to be made: cold, and nowhere yet.
func unmade(d *decision) []warmup.Seat {
	taken := map[int]bool{}
	for _, desktop := range d.Desktops {
		taken[seatNumber(desktop)] = true
	}
	var seats []warmup.Seat
	number := 0
	for range int(d.Pool.GetSpec().GetDesktops()) - len(d.Desktops) {
		for number++; taken[number]; number++ {
		}
		seats = append(seats, warmup.Seat{Number: uint32(number)})
	}
	return seats
}

func hostsOf(view *store.View) map[string]bool {
	hosts := map[string]bool{}
	for _, host := range store.All[*v1.Host](view) {
		hosts[host.GetMeta().GetName()] = true
	}
	return hosts
}

// seatOf is what a desktop is to a plan, or in a few words why it is of no use to one.
func (in *input) seatOf(d *decision, desktop *v1.Desktop) (seat warmup.Seat, lost string) {
	inc, state := desktop.GetIncarnation(), store.State(desktop)
	host := in.hosts[inc.GetHost()]
	seat = warmup.Seat{Number: uint32(seatNumber(desktop)), Claimed: desktop.GetClaim() != nil}
	switch {
	case d.deletion(desktop) != nil:
		return seat, "to be deleted"
	case state == v1.DesktopState_DESKTOP_STATE_LOST:
		return seat, "on hosts that are not heard from"
	case store.Broken(state) && inc.GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED:
		return seat, "failed"
	case awaitsUser(d.now, desktop) && (desktop.GetClaim() != nil || !d.toRefresh(desktop)):
		return seat, sleeps
	case d.isOver(desktop), inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED, desktop.GetClaim() == nil && d.toRefresh(desktop):
		in.giveBack(host, desktop)
		return seat, "" // about to be made anew: cold, and nowhere yet
	case isDue(d.now, desktop) || isStray(d.now, desktop):
		if inc.GetHost() == "" && inc.GetUnplacedReason() != "" {
			return seat, "" // would run if a host took it
		}
		seat.Phase = warmup.Starting
		if state == v1.DesktopState_DESKTOP_STATE_READY {
			seat.Phase = warmup.Ready
		}
		seat.StartAt = inc.GetStartAt().AsTime()
		if inc.GetStartAt() == nil {
			seat.StartAt = begun(inc)
		}
		seat.For = d.startedFor(desktop)
	case host == nil && inc.GetHost() != "":
		return seat, "prepared on hosts that are not well"
	case host != nil && !host.placeable && desktop.GetSpec().GetDataHost() == "":
		return seat, "" // is made anew elsewhere when it is wanted
	case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY:
		seat.StartAt, seat.For = inc.GetStartAt().AsTime(), d.startedFor(desktop)
	}
	if host != nil {
		seat.Host = inc.GetHost()
	}
	in.giveBack(host, desktop)
	return seat, ""
}

// giveBack takes from a host's promises what it promised to a desktop of the plan.
func (in *input) giveBack(host *hostOfPlan, desktop *v1.Desktop) {
	if host == nil || store.State(desktop) == v1.DesktopState_DESKTOP_STATE_DELETED || room.PhaseOf(desktop) != room.Runs {
		return
	}
	host.MemoryMiB += int64(desktop.GetIncarnation().GetShape().GetMemoryMib())
	host.VCPUs += int64(desktop.GetIncarnation().GetShape().GetVcpus())
}

// fetchTime is how long a host takes to fetch a version.
func (in *input) fetchTime(pool *v1.Pool, digest string) time.Duration {
	image, _ := store.Lookup[*v1.Image](in.view, pool.GetSpec().GetImage())
	for _, version := range image.GetStatus().GetVersions() {
		if version.GetDigest() == digest {
			return time.Minute + time.Duration(version.GetSizeBytes()/usualFetchRate)*time.Second
		}
	}
	return time.Minute
}

// PlanName names the plan of a pool for a date.
func PlanName(pool, date string) string { return fmt.Sprintf("%s-%s", pool, date) }
