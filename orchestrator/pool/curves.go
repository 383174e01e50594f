package pool

import (
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// curves remembers what pools' schedules ask for, since they are asked for with every change of a desktop, and what that and
// plans are made of: calendars, what hosts have free, and how long starts take.
type curves struct {
	mu      sync.Mutex
	of      map[string]*curve
	offices map[string]*knownOffice
	model   *model
	rooms   room.Book
}

// historyPause is how long a curve holds while its pool's history goes on: what is learned of a day is of the days before it.
const historyPause = 30 * time.Minute

// curve is valid as long as what it was made of is the same.
type curve struct {
	spec    *v1.PoolSpec
	line    []*v1.Calendar
	history *v1.History
	digest  string
	classes []string
	from    time.Time
	steps   []demand.Step
}

// knownOffice is a calendar, and what it was made of.
type knownOffice struct {
	line     []*v1.Calendar
	resolved *calendar.Resolved
}

// model is how long starts take, and what it was learned from.
type model struct {
	images []*v1.Image
	boots  []boots
	*warmup.Model
}

// boots tells samples of starts from others: they come in the order of time, and the oldest go.
type boots struct {
	pool        string
	count       int
	first, last time.Time
}

// get returns what a pool's schedule asks for from now on, for horizon at least; nil for a pool without a schedule.
func (c *curves) get(view *store.View, pool *v1.Pool, now time.Time) []demand.Step {
	name := pool.GetMeta().GetName()
	if pool.GetSpec().GetSchedule() == nil {
		return nil
	}
	now = now.Round(0) // curves are of the clock's time: when that is set back, they are of the future
	history, _ := store.Lookup[*v1.History](view, name)
	line, digest, usable := calendars(view, pool), digestOf(view, pool), classes(view, pool, history)
	c.mu.Lock()
	known := c.of[name]
	c.mu.Unlock()
	if known != nil && known.knows(history, now) && slices.Equal(known.line, line) && known.digest == digest && slices.Equal(known.classes, usable) &&
		!now.Before(known.from) && now.Sub(known.from) < curveSlack && proto.Equal(known.spec, pool.GetSpec()) {
		return known.steps
	}
	made := &curve{spec: pool.GetSpec(), line: line, history: history, digest: digest, classes: usable, from: now}
	made.steps = demand.Curve(DemandOf(view, pool), now, now.Add(horizon+curveSlack))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]*curve{}
	}
	c.of[name] = made
	return made.steps
}

// knows: the curve was made of the history, or of what it was a while ago.
func (c *curve) knows(history *v1.History, now time.Time) bool {
	return c.history == history || c.history != nil && history != nil && c.history.GetMeta().GetCreated().AsTime().Equal(history.GetMeta().GetCreated().AsTime()) &&
		now.Sub(c.from) < historyPause
}

// office is the pool's calendar with all that it inherits; nil when it has none, or when that cannot be read.
func (c *curves) office(view *store.View, pool *v1.Pool) *calendar.Resolved {
	line := calendars(view, pool)
	if len(line) == 0 {
		return nil
	}
	name := line[0].GetMeta().GetName()
	c.mu.Lock()
	known := c.offices[name]
	c.mu.Unlock()
	if known != nil && slices.Equal(known.line, line) {
		return known.resolved
	}
	made := &knownOffice{line: line, resolved: calendarOf(view, pool)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.offices == nil {
		c.offices = map[string]*knownOffice{}
	}
	c.offices[name] = made
	return made.resolved
}

// learned is what all pools' histories say of how long starts take: those that are kept, and of pools of which none is, as stored.
func (c *curves) learned(view *store.View, kept map[string]unwritten) *warmup.Model {
	images, histories := store.All[*v1.Image](view), slices.Clone(store.All[*v1.History](view))
	histories = slices.DeleteFunc(histories, func(h *v1.History) bool { _, newer := kept[h.GetMeta().GetName()]; return newer })
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		histories = append(histories, &v1.History{Meta: &v1.Meta{Name: name}, Boots: kept[name].boots})
	}
	of := make([]boots, 0, len(histories))
	for _, h := range histories {
		b := boots{pool: h.GetMeta().GetName(), count: len(h.GetBoots())}
		if b.count > 0 {
			b.first, b.last = h.GetBoots()[0].GetReady().AsTime(), h.GetBoots()[b.count-1].GetReady().AsTime()
		}
		of = append(of, b)
	}
	c.mu.Lock()
	known := c.model
	c.mu.Unlock()
	if known != nil && slices.Equal(known.images, images) && slices.Equal(known.boots, of) {
		return known.Model
	}
	made := &model{images: images, boots: of, Model: warmup.Learn(histories, imagesOf(view))}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.model = made
	return made.Model
}

func (c *curves) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.of, name)
}
