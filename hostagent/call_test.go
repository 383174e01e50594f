package hostagent_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

// calls is a Builder that takes every call.
type calls struct {
	mu    sync.Mutex
	taken []hostagent.BuildCall // guarded by mu
}

func (c *calls) Accept(call hostagent.BuildCall) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = append(c.taken, call)
	return nil
}

func (c *calls) MemoryMiB() (sum uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.taken {
		sum += uint64(call.MemoryMiB)
	}
	return sum
}

func (c *calls) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCallsToBuilds(t *testing.T) {
	story(t, fakehost.Config{Hardware: hostagent.Hardware{CPUs: 2, MemoryMiB: 4096}}, func(r *rig) {
		ask := func(id string, memory uint32) *v1.Ask {
			return &v1.Ask{Id: id, Deadline: timestamppb.New(time.Now().Add(time.Minute)), Question: &v1.Ask_Build{Build: &v1.BuildAsk{MemoryMib: memory}}}
		}
		answer := func(asks ...*v1.Ask) map[string]string {
			r.plane.set(func() {
				r.plane.answers = nil
				r.plane.send(&v1.Assignments{Asks: asks})
			})
			r.await("answered", time.Minute, func() bool { return len(r.plane.answered()) == len(asks) })
			errors := map[string]string{}
			for _, answer := range r.plane.answered() {
				errors[answer.GetId()] = answer.GetError()
			}
			return errors
		}
		r.await("a session", time.Minute, func() bool { return len(r.plane.greeted()) == 1 })
		if got := answer(ask("early", 512)); !strings.Contains(got["early"], "does no builds") {
			t.Errorf("a host that does no builds says %q", got)
		}
		builder := &calls{}
		r.configure = func(cfg *hostagent.Config) { cfg.Builder = builder }
		r.restart()
		r.await("another session", time.Minute, func() bool { return len(r.plane.greeted()) == 2 })
		got := answer(ask("small", 1024), ask("large", 8192))
		if got["small"] != "" || !strings.Contains(got["large"], "needs 8192 MiB, and 4096 MiB") {
			t.Errorf("answers %q", got)
		}
		if len(builder.taken) != 1 || builder.taken[0].ID != "small" || builder.taken[0].Source == nil {
			t.Errorf("calls %+v", builder.taken)
		}
		conn, err := builder.taken[0].Dial()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		r.await("the report tells of it", time.Minute, func() bool { return r.plane.lastReport().GetUsage().GetBuildMemoryMib() == 1024 })
	})
}
