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
	store   *store.Store
	mirror  *store.Mirror
	log     zerolog.Logger
	loop    *reconcile.Loop
	waiting prometheus.Gauge
	placed  prometheus.Counter
}

// New makes a controller. st is opened for WriterPlacement and guarded by leadership; mirror knows desktops, hosts and
// images at least and runs beside it.
func New(st *store.Store, mirror *store.Mirror, log zerolog.Logger, reg prometheus.Registerer) *Controller {
	f := promauto.With(reg)
	c := &Controller{
		store: st, mirror: mirror, log: log.With().Str("loop", "placement").Logger(),
		waiting: f.NewGauge(prometheus.GaugeOpts{Name: "daybreak_placement_unplaced", Help: "Desktops for which no host fits."}),
		placed:  f.NewCounter(prometheus.CounterOpts{Name: "daybreak_placement_placed_total", Help: "Desktops placed on a host."}),
	}
	c.loop = reconcile.New("placement", log, c.reconcile)
	return c
}

// Run works until ctx ends and returns nil then.
func (c *Controller) Run(ctx context.Context) error {
	cancel := c.mirror.Subscribe(func(_, _ *store.View, refs []store.Ref) {
		for _, ref := range refs {
			switch ref.Kind {
			case v1.Kind_KIND_DESKTOP, v1.Kind_KIND_HOST, v1.Kind_KIND_IMAGE:
				c.loop.Add(onlyKey)
				return
			}
		}
	})
	defer cancel()
	return c.loop.Run(ctx)
}

func (c *Controller) reconcile(ctx context.Context, _ string) (time.Duration, error) {
	view := c.mirror.View()
	plan := Plan(view)
	revision, quicker, err := c.commit(ctx, plan)
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
// each desktop too. What is refused is planned anew.
func (c *Controller) commit(ctx context.Context, plan []Placement) (revision int64, quicker bool, err error) {
	var reasons []store.Op
	byHost := map[string][]Placement{}
	var hosts []string
	for _, p := range plan {
		if p.Host == nil {
			reasons = append(reasons, store.Update(p.Desktop))
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
			last, err := c.place(ctx, part)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				return revision, quicker, err
			}
			quicker = quicker || err != nil
			revision = max(revision, last)
		}
	}
	last, failed, err := c.store.CommitEach(ctx, reasons)
	for _, f := range failed {
		if !errors.Is(f, store.ErrConflict) {
			err = errors.Join(err, f)
		}
	}
	return max(revision, last), quicker || len(failed) > 0, err
}

// place writes placements on one host.
func (c *Controller) place(ctx context.Context, part []Placement) (int64, error) {
	host := part[0].Host
	ops := []store.Op{store.Check(host)}
	for _, p := range part {
		ops = append(ops, store.Update(p.Desktop))
	}
	revision, err := c.store.Commit(ctx, ops...)
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
