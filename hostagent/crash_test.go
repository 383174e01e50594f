package hostagent_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

// chaos is a bad hour for a host: calls fail, hang and lie, QEMUs die, the power goes, sessions are cut, and the agent is
// killed in the middle of any step. A small pool replaces what failed.
type chaos struct {
	*rig
	mu     sync.Mutex
	random *rand.Rand
	// armed while calls fail.
	armed  bool
	killed map[hostagent.Life]bool
	power  bool
	next   int64
	seats  map[string]*v1.Assignment
}

func (c *chaos) roll(chance float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.armed && c.random.Float64() < chance
}

func (c *chaos) arm(armed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = armed
}

func (c *chaos) isArmed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.armed
}

func (c *chaos) pick(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

func (c *chaos) fault(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
	if op != fakehost.OpDomains && op != fakehost.OpList && c.roll(0.03) {
		c.kill()
	}
	broken := errors.New("something broke")
	switch {
	case c.roll(0.03):
		return fakehost.Fault{Refuse: broken}
	case c.roll(0.03) && op != fakehost.OpDomains && op != fakehost.OpList:
		return fakehost.Fault{Lie: broken}
	case c.roll(0.02):
		return fakehost.Fault{Hang: true, Done: c.roll(0.5)}
	case c.roll(0.05):
		return fakehost.Fault{Delay: time.Duration(c.pick(8000)) * time.Millisecond}
	}
	return fakehost.Fault{}
}

// hurt does one bad thing to the host or the network.
func (c *chaos) hurt() {
	running := c.host.Running()
	switch c.pick(12) {
	case 0, 1, 2:
		c.plane.cut()
	case 3, 4:
		if len(running) > 0 {
			life := running[c.pick(len(running))]
			c.killed[life] = true
			c.host.Kill(life)
		}
	case 5:
		c.crash()
		c.host.PowerLoss()
		c.power = true
		c.start()
	case 6:
		c.host.EmptyLists(1)
	case 7:
		c.host.SetHung(true)
		time.Sleep(time.Duration(c.pick(40)) * time.Second)
		c.host.SetHung(false)
	case 8:
		c.plane.set(func() { c.plane.sequence += 3 })
	case 9:
		if len(running) > 0 {
			c.host.SetState(running[c.pick(len(running))], hostagent.DomainPausedIO)
		}
	default:
		c.restart()
	}
}

// pool does what the control plane's pool would: it ends what failed, now and then what did not, and begins the next life
// when the last one has ended.
func (c *chaos) pool() {
	for name, a := range c.seats {
		ending := a.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED
		switch state := c.plane.state(a); {
		case ending && state == deleted:
			c.next++
			c.plane.drop(name)
			c.seats[name] = c.desktop(name, c.next)
			c.plane.assign(c.seats[name])
		case !ending && state == ready && c.roll(0.05):
			c.seats[name] = desired(a, wantSuspended)
			c.plane.assign(c.seats[name])
		case !ending && a.GetIncarnation().GetDesired() == wantSuspended && (state == suspended && c.roll(0.3) || !c.isArmed()):
			c.seats[name] = desired(a, wantReady)
			c.plane.assign(c.seats[name])
		case !ending && (state == failed || state == stopped || c.roll(0.02)):
			c.seats[name] = toBeDeleted(a)
			c.plane.assign(c.seats[name])
		}
	}
}

func TestKilledAtAnyStepItConverges(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			c := &chaos{random: rand.New(rand.NewPCG(seed, 1)), killed: map[hostagent.Life]bool{}, seats: map[string]*v1.Assignment{}}
			story(t, fakehost.Config{Fault: c.fault, Fetch: 20 * time.Second}, func(r *rig) {
				c.rig = r
				for i := range 6 {
					c.next++
					name := fmt.Sprintf("office-%d", i)
					c.seats[name] = r.desktop(name, c.next)
					r.plane.assign(c.seats[name])
				}
				c.arm(true)
				for range 120 {
					time.Sleep(time.Duration(c.pick(10000)) * time.Millisecond)
					if c.roll(0.2) {
						c.hurt()
					}
					c.pool()
					if c.agentEnded() {
						r.restart()
					}
				}
				c.arm(false)
				for _, life := range r.host.Running() {
					r.host.SetState(life, hostagent.DomainRunning)
				}
				c.pool() // nothing sleeps from here on
				r.restart()
				var last string
				r.await("all ready", 30*time.Minute, func() bool {
					c.pool()
					for _, a := range c.seats {
						if r.plane.state(a) != ready || !r.runs(a) {
							if now := fmt.Sprintf("wanted: %v\nreported: %v\nruns: %v", a, r.plane.status(a), r.runs(a)); now != last {
								last = now
								t.Log(now)
							}
							return false
						}
					}
					return true
				})
				if len(tally(r)) <= len(c.seats) {
					t.Errorf("only %d lives in all that: the faults do not bite", len(tally(r)))
				}
				if running := len(r.host.Running()); running != len(c.seats) {
					t.Errorf("%d VMs run for %d desktops", running, len(c.seats))
				}
				for life, starts := range tally(r) {
					if starts > 1 && !c.killed[life] && !c.power {
						t.Errorf("%s generation %d was started %d times", life.Desktop, life.Generation, starts)
					}
				}
				if clashes := r.host.Tally().Clashes; len(clashes) > 0 {
					t.Errorf("started beside another life: %v", clashes)
				}
			})
		})
	}
}

// agentEnded reports whether the agent was killed at a step.
func (c *chaos) agentEnded() bool { return c.ctx.Err() != nil }

func tally(r *rig) map[hostagent.Life]int { return r.host.Tally().Starts }
