package pool

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	digestOne = "1111111111111111111111111111111111111111111111111111111111111111"
	digestTwo = "2222222222222222222222222222222222222222222222222222222222222222"
)

// world is a store, placement and hosts in a few lines, for the tests of Decide.
type world struct {
	now      time.Time
	revision int64
	pool     *v1.Pool
	image    *v1.Image
	zone     bool
	desktops map[string]*v1.Desktop
	hosts    map[string]bool
	events   []*v1.Event
	made     int

	office *calendar.Resolved // that the pool's schedule follows
	memory int64              // of each host, MiB; 0 means that nobody knows
	plans  []*v1.Plan
	queue  int // users who wait
}

func newWorld(seats uint32) *world {
	return &world{
		now: time.Date(2027, 4, 5, 8, 0, 0, 0, time.UTC), revision: 100, zone: true,
		pool: &v1.Pool{
			Meta: &v1.Meta{Name: "sales", Revision: 90},
			Spec: &v1.PoolSpec{Image: "office", Zone: "lgwan", Desktops: seats},
		},
		image: &v1.Image{Meta: &v1.Meta{Name: "office"}, Status: &v1.ImageStatus{Current: 1, Versions: []*v1.ImageVersion{
			{Number: 1, Digest: digestOne, State: v1.VersionState_VERSION_STATE_READY},
			{Number: 2, Digest: digestTwo, State: v1.VersionState_VERSION_STATE_DRAFT},
		}}},
		desktops: map[string]*v1.Desktop{},
		hosts:    map[string]bool{"h1": true, "h2": true},
	}
}

// copy makes a world that can be changed by itself.
func (w *world) copy() *world {
	c := *w
	c.pool, c.image, c.hosts, c.desktops = proto.CloneOf(w.pool), proto.CloneOf(w.image), maps.Clone(w.hosts), maps.Clone(w.desktops)
	return &c
}

// names in order, so that nothing depends on the order of a map.
func (w *world) names() []string { return slices.Sorted(maps.Keys(w.desktops)) }

func (w *world) snapshot() Snapshot {
	s := Snapshot{Revision: w.revision, Pool: w.pool, Image: w.image, ZoneExists: w.zone, Hosts: w.hosts, Events: w.events}
	for _, name := range w.names() {
		s.Desktops = append(s.Desktops, w.desktops[name])
	}
	if w.pool.Spec.Schedule != nil {
		s.Curve = demand.Curve(demand.Pool{Spec: w.pool.Spec, Calendar: w.office}, w.now, w.now.Add(horizon))
		s.Plans, s.Rooms = w.plans, sync.OnceValue(w.rooms)
		s.Yields = yields(w.now, s.Rooms(), w.neighbours())
	}
	for n := range w.queue {
		s.Queue = append(s.Queue, &v1.Claim{Meta: &v1.Meta{Name: fmt.Sprintf("%s-waiting%d", w.pool.Meta.Name, n)}})
	}
	for range int(w.pool.Spec.Desktops) - len(w.desktops) {
		w.made++
		s.Identities = append(s.Identities, Identity{
			UID:    fmt.Sprintf("00000000-0000-4000-8000-%012d", w.made),
			VMUUID: fmt.Sprintf("00000000-0000-4000-9000-%012d", w.made),
			MAC:    fmt.Sprintf("52:54:00:00:%02x:%02x", w.made/256%256, w.made%256),
		})
	}
	return s
}

func (w *world) neighbours() neighbours {
	all := func() (list []*v1.Desktop) {
		for _, name := range w.names() {
			list = append(list, w.desktops[name])
		}
		return list
	}
	return neighbours{
		func(host string) []*v1.Desktop {
			return slices.DeleteFunc(all(), func(d *v1.Desktop) bool { return d.Incarnation.Host != host })
		},
		func(string) (*v1.Pool, []*v1.Desktop) { return w.pool, all() },
	}
}

// round decides and commits, as the controller does.
func (w *world) round() Actions {
	actions := Decide(w.now, w.snapshot())
	w.commit(actions)
	return actions
}

func (w *world) commit(a Actions) {
	w.revision++
	for _, held := range a.HeldBack {
		w.events = append(w.events, heldEvent(w.now, w.pool, held))
	}
	for _, change := range slices.Concat(a.Create, a.Amend, a.Retire, a.Renew, a.Wake, a.Cool) {
		w.put(change.Desktop)
	}
	for _, change := range slices.Concat(a.Create, a.Amend, a.Retire, a.Renew, a.Remove, a.Wake, a.Cool) {
		if change.Reason != "" {
			event := store.NewEvent(w.now, change.Desktop, change.Reason, change.Message, change.Warning)
			if change.Attempt != "" {
				event.Meta.Labels = map[string]string{attemptLabel: change.Attempt}
			}
			w.events = append(w.events, event)
		}
	}
	for _, change := range a.Remove {
		delete(w.desktops, change.Desktop.Meta.Name)
	}
	w.pool = proto.CloneOf(w.pool)
	w.pool.Status = a.Status
}

func (w *world) put(d *v1.Desktop) {
	d = proto.CloneOf(d)
	d.Meta.Revision = w.revision
	if d.Meta.Created == nil {
		d.Meta.Created = timestamppb.New(w.now)
	}
	w.desktops[d.Meta.Name] = d
}

// change edits one desktop as some other writer would.
func (w *world) change(name string, edit func(d *v1.Desktop)) {
	w.revision++
	d := proto.CloneOf(w.desktops[name])
	edit(d)
	w.put(d)
}

// report writes what a host says of the present life.
func (w *world) report(name string, state v1.DesktopState, message string) {
	w.change(name, func(d *v1.Desktop) {
		var times []*v1.StateTime
		data := d.Status.GetDataDisk()
		if d.Status.GetGeneration() == d.Incarnation.Generation {
			times = d.Status.Times
		}
		if state == v1.DesktopState_DESKTOP_STATE_PREPARED && d.Incarnation.Shape.DataDiskGib > 0 {
			data = true
		}
		if d.Incarnation.DataDisposal != v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED && state == v1.DesktopState_DESKTOP_STATE_DELETED {
			data = false
		}
		d.Status = &v1.DesktopStatus{
			Generation: d.Incarnation.Generation, State: state, Message: message, DataDisk: data,
			Times: append(slices.Clone(times), &v1.StateTime{State: state, At: timestamppb.New(w.now)}),
		}
	})
}

// place does placement's part for one desktop.
func (w *world) place(name, host string) {
	w.change(name, func(d *v1.Desktop) {
		inc := d.Incarnation
		wanted := inc.Desired == v1.DesiredState_DESIRED_STATE_READY || inc.Desired == v1.DesiredState_DESIRED_STATE_PREPARED || d.Spec.DataHost != ""
		if inc.Host != "" || !wanted {
			return
		}
		if d.Spec.DataHost != "" {
			host = d.Spec.DataHost
		}
		inc.UnplacedReason = ""
		defer func() {
			if inc.Host == "" {
				inc.UnplacedReason = "no host fits"
			}
		}()
		hosts := []string{host, "h1", "h2"}
		if w.memory != 0 { // as placement does: the one with most room if all ran
			rooms := w.rooms()
			slices.SortStableFunc(rooms, func(a, b *room.Host) int { return int(b.FreeMemoryMiB - b.ColdMiB - a.FreeMemoryMiB + a.ColdMiB) })
			hosts = nil
			for _, h := range rooms {
				hosts = append(hosts, h.Name())
			}
		}
		for _, host := range hosts {
			fits := w.memory == 0 || inc.Desired != v1.DesiredState_DESIRED_STATE_READY || w.room(host).Holds(need(d, room.Runs))
			if inc.Host == "" && w.hosts[host] && fits && (d.Spec.DataHost == "" || d.Spec.DataHost == host) {
				inc.Host = host
			}
		}
	})
}

// advance takes one desktop one step on the way that a healthy host goes.
func (w *world) advance(name, host string) {
	d := w.desktops[name]
	if d.Incarnation.Host == "" {
		w.place(name, host)
		return
	}
	if !w.hosts[d.Incarnation.Host] {
		return
	}
	state := store.State(d)
	if state == v1.DesktopState_DESKTOP_STATE_LOST { // the host is back and says what is
		state = v1.DesktopState_DESKTOP_STATE_STARTING
		w.report(name, state, "")
	}
	switch {
	case d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED:
		if state != v1.DesktopState_DESKTOP_STATE_DELETED {
			w.report(name, v1.DesktopState_DESKTOP_STATE_DELETED, "")
		}
	case state == v1.DesktopState_DESKTOP_STATE_PLACED:
		w.report(name, v1.DesktopState_DESKTOP_STATE_PREPARED, "")
	case d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_SUSPENDED:
		if state == v1.DesktopState_DESKTOP_STATE_READY {
			w.report(name, v1.DesktopState_DESKTOP_STATE_SUSPENDED, "")
		}
	case state == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		w.report(name, v1.DesktopState_DESKTOP_STATE_READY, "")
	case state == v1.DesktopState_DESKTOP_STATE_PREPARED:
		if isDue(w.now, d) {
			w.report(name, v1.DesktopState_DESKTOP_STATE_STARTING, "")
		}
	case state == v1.DesktopState_DESKTOP_STATE_STARTING:
		w.report(name, v1.DesktopState_DESKTOP_STATE_READY, "")
	}
}

// settle runs rounds with healthy hosts until nothing more happens and returns how many it took; -1 if it never ends.
func (w *world) settle(limit int) int {
	for n := range limit {
		before := w.revision
		actions := w.round()
		quiet := changed(actions) == 0
		w.revision = before + 1
		for _, name := range w.names() {
			was := w.desktops[name]
			w.advance(name, "h1")
			quiet = quiet && proto.Equal(ignoringRevision(was), ignoringRevision(w.desktops[name]))
		}
		if quiet && (actions.Again == 0 || w.pool.Spec.Schedule != nil && w.pool.Status.HeldUntil == nil && actions.Again >= shortPause) {
			return n
		}
		w.now = w.now.Add(time.Minute)
	}
	return -1
}

func ignoringRevision(d *v1.Desktop) *v1.Desktop {
	d = proto.CloneOf(d)
	d.Meta.Revision = 0
	return d
}

func (w *world) claim(name, user string) {
	w.change(name, func(d *v1.Desktop) {
		d.Claim = &v1.DesktopClaim{User: user, Since: timestamppb.New(w.now)}
		d.Incarnation.UsedBy = user
	})
}

func (w *world) release(name string) {
	w.change(name, func(d *v1.Desktop) { d.Claim = nil })
}

func (w *world) ready() (names []string) {
	for _, name := range w.names() {
		if store.State(w.desktops[name]) == v1.DesktopState_DESKTOP_STATE_READY {
			names = append(names, name)
		}
	}
	return names
}

// changedNames lists what a list of changes is about.
func changedNames(changes []Change) []string {
	names := make([]string, 0, len(changes))
	for _, change := range changes {
		names = append(names, change.Desktop.Meta.Name)
	}
	return names
}
