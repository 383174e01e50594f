package placement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"

	"daybreak/orchestrator/reconcile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// onlyKey is the loop's one key: a plan is about all hosts and all that wait.
const onlyKey = "plan"

// conflictPause is how long a plan waits that others were quicker than.
const conflictPause = 50 * time.Millisecond

// maxTogether bounds the desktops that are placed in one transaction.
const maxTogether = 64

// Controller places what waits whenever something changed. One runs in the whole cluster.
type Controller struct {
	mirror  *store.Mirror
	log     zerolog.Logger
	waiting prometheus.Gauge
	placed  prometheus.Counter
}

// New makes a controller. mirror knows desktops, hosts, images and events at least and runs beside it.
func New(mirror *store.Mirror, log zerolog.Logger, reg prometheus.Registerer) *Controller {
	f := promauto.With(reg)
	return &Controller{
		mirror: mirror, log: log,
		waiting: f.NewGauge(prometheus.GaugeOpts{Name: "daybreak_placement_unplaced", Help: "Desktops for which no host fits."}),
		placed:  f.NewCounter(prometheus.CounterOpts{Name: "daybreak_placement_placed_total", Help: "Desktops placed on a host."}),
	}
}

// Run works until ctx ends and returns nil then. st is opened for WriterPlacement and guarded by leadership.
func (c *Controller) Run(ctx context.Context, st *store.Store) error {
	loop := reconcile.New("placement", c.log, func(ctx context.Context, _ string) (time.Duration, error) {
		return c.reconcile(ctx, st)
	})
	cancel := c.mirror.Subscribe(func(_, _ *store.View, refs []store.Ref) {
		for _, ref := range refs {
			switch ref.Kind {
			case v1.Kind_KIND_DESKTOP, v1.Kind_KIND_HOST, v1.Kind_KIND_IMAGE:
				loop.Add(onlyKey)
				return
			}
		}
	})
	defer cancel()
	return loop.Run(ctx)
}

func (c *Controller) reconcile(ctx context.Context, st *store.Store) (time.Duration, error) {
	view := c.mirror.View()
	revision, quicker, err := c.commit(ctx, st, Plan(view), newSpells(view, time.Now()))
	if err != nil {
		return 0, fmt.Errorf("commit placements: %w", err)
	}
	view, err = c.mirror.Wait(ctx, revision)
	if err != nil {
		return 0, err
	}
	waiting := 0
	for _, desktop := range store.All[*v1.Desktop](view) {
		if waits(desktop) {
			waiting++
		}
	}
	c.waiting.Set(float64(waiting))
	if quicker {
		return conflictPause, nil
	}
	return 0, nil
}

// commit writes a plan, in one transaction for each host: it holds only if the host is still as the plan saw it, and
// each desktop too. What is refused is planned anew. Events and the reasons of those that fit nowhere come after it.
func (c *Controller) commit(ctx context.Context, st *store.Store, plan []Placement, events []store.Op) (revision int64, quicker bool, err error) {
	rest := events
	byHost := map[string][]Placement{}
	var hosts []string
	for _, p := range plan {
		if p.Host == nil {
			rest = append(rest, store.Update(p.Desktop))
			continue
		}
		name := p.Host.GetMeta().GetName()
		if byHost[name] == nil {
			hosts = append(hosts, name)
		}
		byHost[name] = append(byHost[name], p)
	}
	for _, name := range hosts {
		for part := range slices.Chunk(byHost[name], maxTogether) {
			last, err := c.place(ctx, st, part)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				return revision, quicker, err
			}
			quicker = quicker || err != nil
			revision = max(revision, last)
		}
	}
	last, failed, err := st.CommitEach(ctx, rest)
	for _, f := range failed {
		if !errors.Is(f, store.ErrConflict) {
			err = errors.Join(err, f)
		}
	}
	return max(revision, last), quicker || len(failed) > 0, err
}

// place writes placements on one host.
func (c *Controller) place(ctx context.Context, st *store.Store, part []Placement) (int64, error) {
	host := part[0].Host
	ops := []store.Op{store.Check(host)}
	for _, p := range part {
		ops = append(ops, store.Update(p.Desktop))
	}
	revision, err := st.Commit(ctx, ops...)
	if err != nil {
		return 0, err
	}
	c.placed.Add(float64(len(part)))
	for _, p := range part {
		c.log.Info().Str("desktop", p.Desktop.GetMeta().GetName()).Str("host", host.GetMeta().GetName()).
			Int64("generation", p.Desktop.GetIncarnation().GetGeneration()).Msg("placed")
	}
	return revision, nil
}
