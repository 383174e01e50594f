package dispatch

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// tickPeriod is how often silence is looked for.
const tickPeriod = 2 * time.Second

// listen finds the hosts that are not heard, until ctx ends.
func (t *term) listen(ctx context.Context) error {
	ticker := time.NewTicker(tickPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-ticker.C:
			for _, n := range t.tick(now) {
				t.event(ctx, now, n)
			}
		}
	}
}

// tick marks what fell silent.
func (t *term) tick(now time.Time) []notice {
	view := t.mirror.View()
	hosts := store.All[*v1.Host](view)
	t.mu.Lock()
	defer t.mu.Unlock()
	silent := 0
	phases := map[v1.HostPhase]int{}
	for _, h := range hosts {
		p := t.peer(h.GetMeta().GetName(), now)
		p.silent = now.Sub(p.heard) > t.cfg.Grace
		if p.silent {
			silent++
		}
		phases[h.GetStatus().GetPhase()]++
	}
	notices := t.freeze(hosts, silent)
	for _, h := range hosts {
		p := t.peers[h.GetMeta().GetName()]
		if p.silent {
			t.silence(p, view, now)
		} else if len(p.orphans) > 0 {
			t.settle(p, view)
		}
	}
	for phase, name := range phaseNames {
		t.metrics.hosts.WithLabelValues(name).Set(float64(phases[phase]))
	}
	return notices
}

// freeze decides whether the silence is so wide that nothing destructive may be done. The caller holds mu.
func (t *term) freeze(hosts []*v1.Host, silent int) []notice {
	was := t.frozen
	t.frozen = tooManySilent(silent, len(hosts))
	t.metrics.frozen.Set(0)
	if t.frozen {
		t.metrics.frozen.Set(1)
	}
	if len(hosts) == 0 {
		return nil
	}
	switch {
	case t.frozen && !was:
		message := fmt.Sprintf("mass silence: %d of %d hosts are not heard, destructive acts are frozen; "+
			"is this daybreakd cut off from them?", silent, len(hosts))
		return []notice{{t.firstSilent(hosts), "MassSilence", message, true}}
	case was && !t.frozen:
		message := fmt.Sprintf("mass silence is over: %d of %d hosts are not heard", silent, len(hosts))
		return []notice{{hosts[0], "MassSilenceOver", message, false}}
	}
	return nil
}

func (t *term) firstSilent(hosts []*v1.Host) *v1.Host {
	for _, h := range hosts {
		if t.peers[h.GetMeta().GetName()].silent {
			return h
		}
	}
	return hosts[0]
}

// silence marks a host DOWN and its desktops LOST, and ends its session: what comes back speaks for a whole first. The
// caller holds mu.
func (t *term) silence(p *peer, view *store.View, now time.Time) {
	t.endSession(p, status.Errorf(codes.Aborted, "host %s was not heard for %v", p.name, t.cfg.Grace))
	t.sync(p, view, now)
	for _, d := range view.DesktopsOnHost(p.name) {
		c := change{host: p.name, lost: timestamppb.New(now)}
		if _, what := c.apply(d); what == outcomeChanged {
			t.enqueue(d.GetMeta().GetName(), c)
		}
	}
}

// sync has Host.status written when it is not what it should be. The caller holds mu.
func (t *term) sync(p *peer, view *store.View, now time.Time) {
	h, ok := store.Lookup[*v1.Host](view, p.name)
	if !ok {
		return
	}
	if _, worth := hostStatus(h.GetStatus(), p.facts, now, p.usageWritten); worth {
		t.open.hosts[p.name] = struct{}{}
		t.wakeWriter()
	}
}
