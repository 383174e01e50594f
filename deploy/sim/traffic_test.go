package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"daybreak/orchestrator/pool"
	v1 "daybreak/proto/daybreak/v1"
)

// told is what a user knows from the answers to their own calls.
type told int

const (
	toldNothing told = iota // holds nothing
	toldHeld
	toldUnsure // a call's outcome is not known
)

// user claims and releases a desktop of one pool, and remembers what was answered.
type user struct {
	sim  *sim
	name string
	pool string
	// stays: works until everybody is sent home.
	stays bool

	mu   sync.Mutex
	busy bool
	told told
	held *v1.Desktop
}

// step begins the user's next call, unless one is under way.
func (u *user) step(leave bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.sim.anyPlane()
	if u.busy || p == nil {
		return
	}
	switch {
	case u.told == toldHeld && !leave && (u.stays || u.sim.dice.IntN(3) > 0):
		if u.sim.history.desktop(u.held.GetMeta().GetName()).GetClaim().GetRestartAt() != nil && u.sim.dice.IntN(2) == 0 {
			u.busy = true
			u.sim.group.Go(func() error { u.putOff(p); return nil })
		}
		return // works on
	case u.told == toldHeld || u.told == toldUnsure && leave:
		u.busy = true
		u.sim.group.Go(func() error { u.release(p); return nil })
	case !leave:
		u.busy = true
		impatient := u.sim.dice.IntN(4) == 0
		u.sim.group.Go(func() error { u.claim(p, impatient); return nil })
	}
}

// claim asks for a desktop; somebody impatient clicks twice.
func (u *user) claim(p *plane, impatient bool) {
	clicks := 1
	if impatient {
		clicks = 2
	}
	answers := make(chan answer, clicks)
	for range clicks {
		u.sim.group.Go(func() error {
			ctx, cancel := context.WithTimeout(p.ctx, 15*time.Second)
			defer cancel()
			d, err := p.claimer.Claim(ctx, u.pool, u.name, fmt.Sprint(u.name, "-", time.Now().UnixNano()), time.Now())
			answers <- answer{d, err}
			return nil
		})
	}
	for range clicks {
		u.hear(<-answers)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy = false
}

type answer struct {
	desktop *v1.Desktop
	err     error
}

// hear holds an answer to a claim against what was answered before.
func (u *user) hear(a answer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lapsed()
	switch {
	case a.err == nil && u.told == toldHeld && u.held.GetMeta().GetUid() != a.desktop.GetMeta().GetUid():
		u.sim.problem("2", "%s holds %s and was given %s too", u.name, u.held.GetMeta().GetName(), a.desktop.GetMeta().GetName())
	case a.err == nil:
		u.told, u.held = toldHeld, a.desktop
		u.sim.claimed.Add(1)
	case errors.Is(a.err, pool.ErrNoneReady) || u.told == toldHeld:
		// Nothing was given, or the other click got it.
	default:
		u.told = toldUnsure
	}
}

// putOff asks for more time before a restart.
func (u *user) putOff(p *plane) {
	ctx, cancel := context.WithTimeout(p.ctx, 15*time.Second)
	defer cancel()
	began := time.Now()
	d, _, err := p.claimer.Defer(ctx, u.pool, u.name, began)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy = false
	u.lapsed()
	if err == nil && !d.GetClaim().GetRestartAt().AsTime().After(began) {
		u.sim.problem("7", "%s put the restart of %s off until %v, which is over", u.name, d.GetMeta().GetName(), d.GetClaim().GetRestartAt().AsTime())
	}
	if errors.Is(err, pool.ErrNotClaimed) && u.told == toldHeld {
		u.sim.problem("2", "%s holds %s and is told that they hold nothing", u.name, u.held.GetMeta().GetName())
	}
}

func (u *user) release(p *plane) {
	ctx, cancel := context.WithTimeout(p.ctx, 15*time.Second)
	defer cancel()
	_, err := p.claimer.Release(ctx, u.pool, u.name, "")
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy = false
	u.lapsed()
	switch {
	case err == nil:
		u.told, u.held = toldNothing, nil
	case errors.Is(err, pool.ErrNotClaimed) && u.told == toldHeld:
		u.sim.problem("2", "%s holds %s and is told that they hold nothing", u.name, u.held.GetMeta().GetName())
		u.told = toldNothing
	case errors.Is(err, pool.ErrNotClaimed):
		u.told = toldNothing
	default:
		u.told = toldUnsure
	}
}

// check holds what the user was told against what is stored and what runs.
func (u *user) check() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.busy || u.lapsed() || u.told != toldHeld {
		return
	}
	d := u.sim.history.desktop(u.held.GetMeta().GetName())
	if d.GetMeta().GetUid() != u.held.GetMeta().GetUid() || d.GetClaim().GetUser() != u.name {
		u.sim.problem("11", "%s was given %s and the store has forgotten it: %v", u.name, u.held.GetMeta().GetName(), d.GetClaim())
		u.told = toldNothing
		return
	}
}
