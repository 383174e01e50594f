package hostagent_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

func TestALowerGenerationIsRefused(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		old, young := r.desktop("office-1", 7), r.desktop("office-1", 9)
		r.plane.assign(young)
		r.awaitState(young, ready, time.Minute)
		r.restart()
		r.plane.assign(old)
		r.await("said", time.Minute, func() bool {
			return strings.Contains(r.plane.lastReport().GetUnwell(), "1 assignments were refused, since they are not valid or older than what this host has seen: office-1")
		})
		time.Sleep(time.Minute)
		if r.plane.status(old) != nil || r.starts(old) != 0 || !r.runs(young) {
			t.Errorf("old: %v, starts %d; young runs: %v", r.plane.status(old), r.starts(old), r.runs(young))
		}
		// What is right again makes the host well again.
		r.plane.assign(young)
		r.await("well", time.Minute, func() bool { return r.plane.lastReport().GetUnwell() == "" })
		if r.plane.status(young).GetOrphan() || !r.runs(young) {
			t.Errorf("young: %v", r.plane.status(young))
		}
	})
}

func TestASupersededLifeEndsAndTheNewerIsUntouched(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		old := r.desktop("office-1", 7)
		old.Incarnation.Shape.DataDiskGib = 1
		r.plane.assign(old)
		r.awaitState(old, ready, time.Minute)
		// The control plane forgets the life, and makes a newer one.
		r.plane.forget("office-1")
		r.plane.cut()
		r.await("orphan", time.Minute, func() bool { return r.plane.status(old).GetOrphan() })
		young := with(old, func(a *v1.Assignment) { a.Incarnation.Generation = 9 })
		r.plane.assign(young)
		r.await("waits for the old one", time.Minute, func() bool {
			got := r.plane.status(young).GetStatus()
			return got.GetState() == prepared && got.GetMessage() == "waiting until generation 7 of this desktop has ended"
		})
		// A drop that comes too early takes nothing from the newer life.
		r.plane.set(func() { r.plane.send(&v1.Assignments{Drop: []string{"office-1"}}) })
		time.Sleep(time.Minute)
		if r.plane.status(young).GetOrphan() || !r.runs(old) {
			t.Errorf("after an early drop: young %v; old runs: %v", r.plane.status(young), r.runs(old))
		}
		end := with(toBeDeleted(old), func(a *v1.Assignment) { a.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE })
		r.plane.set(func() { r.plane.assigned["office-1@7"] = end })
		r.plane.cut()
		r.awaitState(old, deleted, time.Minute)
		r.awaitState(young, ready, time.Minute)
		if disks, _ := r.host.DataDisks(t.Context()); len(disks) != 1 {
			t.Error("the old life took the data disk with it")
		}
		if got := r.plane.status(young).GetStatus(); !got.GetDataDisk() {
			t.Errorf("data disk not reported: %v", got)
		}
		if clashes := r.host.Tally().Clashes; len(clashes) != 0 {
			t.Errorf("tried to start beside another life: %v", clashes)
		}
		// Dropping the old one by name leaves the newer one assigned.
		r.plane.set(func() {
			delete(r.plane.assigned, "office-1@7")
			r.plane.send(&v1.Assignments{Drop: []string{"office-1"}})
		})
		time.Sleep(time.Minute)
		if got := r.plane.status(young); got.GetOrphan() || !r.runs(young) {
			t.Errorf("young: %v", got)
		}
		// An order for the ended life, come late, makes nothing of it again.
		r.plane.set(func() { r.plane.send(&v1.Assignments{Set: []*v1.Assignment{end}}) })
		time.Sleep(time.Minute)
		if r.starts(old) != 1 || !r.runs(young) || r.plane.state(young) != ready {
			t.Errorf("a late order touched the newer life: %v", r.plane.status(young))
		}
	})
}

func TestDataDiskOutlivesLivesAndGoesByName(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		a.Incarnation.Shape.DataDiskGib = 1
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, time.Minute)
		r.plane.drop("office-1")
		r.await("listed as kept", time.Minute, func() bool { return len(r.plane.lastReport().GetKeptDisks()) == 1 })
		b := with(a, func(a *v1.Assignment) { a.Incarnation.Generation = 8 })
		r.plane.assign(b)
		r.awaitState(b, ready, time.Minute)
		r.await("not listed as kept", time.Minute, func() bool { return len(r.plane.lastReport().GetKeptDisks()) == 0 })
		r.plane.assign(with(toBeDeleted(b), func(a *v1.Assignment) { a.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE }))
		r.awaitState(b, deleted, time.Minute)
		if disks, _ := r.host.DataDisks(t.Context()); len(disks) != 0 {
			t.Error("the data disk is still there")
		}
	})
}

func TestALifeThatEndedStaysEnded(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, time.Minute)
		r.plane.drop("office-1")
		time.Sleep(time.Minute)
		r.restart()
		r.plane.assign(a)
		time.Sleep(5 * time.Minute)
		if r.plane.state(a) != deleted || r.starts(a) != 1 {
			t.Errorf("%v, started %d times", r.plane.status(a), r.starts(a))
		}
	})
}

func TestAnOlderEpochMakesReadOnly(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		r.plane.set(func() { r.plane.epoch = 5 })
		r.plane.cut()
		time.Sleep(5 * time.Second)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.plane.set(func() { r.plane.epoch = 4 })
		r.restart()
		r.plane.assign(toBeDeleted(a), b)
		r.await("said", time.Minute, func() bool {
			return strings.Contains(r.plane.lastReport().GetUnwell(), "epoch is older than this host has seen: it is 4, seen was 5")
		})
		time.Sleep(time.Hour)
		if !r.runs(a) || r.starts(b) != 0 || r.plane.status(a).GetOrphan() {
			t.Errorf("an old control plane was obeyed: %v", r.host.Running())
		}
		r.plane.set(func() { r.plane.epoch = 6 })
		r.plane.assign(b)
		r.awaitState(a, deleted, time.Minute)
		r.awaitState(b, ready, time.Minute)
	})
}

func TestInvalidAssignmentsDoNotKeepTheOthersAway(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		good := r.desktop("office-1", 7)
		for i, spoil := range []func(*v1.Assignment){
			func(a *v1.Assignment) { a.Desktop = "../etc/passwd" },
			func(a *v1.Assignment) { a.Uid = "1" },
			func(a *v1.Assignment) { a.Spec.Mac = "<mac/>" },
			func(a *v1.Assignment) { a.Spec.VmUuid = "" },
			func(a *v1.Assignment) { a.Incarnation.Generation = -1 },
			func(a *v1.Assignment) { a.Incarnation.Digest = "ab" },
			func(a *v1.Assignment) { a.Incarnation.Shape.Vcpus = 1000 },
			func(a *v1.Assignment) { a.Incarnation = nil },
		} {
			bad := r.desktop(fmt.Sprintf("bad-%d", i), 8)
			spoil(bad)
			r.plane.assign(bad)
		}
		r.plane.assign(good)
		r.awaitState(good, ready, time.Minute)
		if n := len(r.host.Running()); n != 1 {
			t.Errorf("%d VMs run, want 1", n)
		}
		refused := func(n string) func() bool {
			return func() bool { return strings.HasPrefix(r.plane.lastReport().GetUnwell(), n) }
		}
		r.await("all refused", time.Minute, refused("8 assignments were refused"))
		// One is mended, one is dropped: neither needs a new session to be well again.
		r.plane.assign(r.desktop("bad-1", 8))
		r.plane.drop("bad-2")
		r.await("six refused", time.Minute, refused("6 assignments were refused"))
		if sessions := len(r.plane.greeted()); sessions != 1 {
			t.Errorf("%d sessions", sessions)
		}
	})
}

func TestWithoutTheZonesNetwork(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		a.Spec.Zone = "lgwan"
		r.plane.assign(a)
		r.awaitState(a, failed, time.Minute)
	})
}

func TestAHungHypervisor(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.SetHung(true)
		r.await("said", time.Minute, func() bool {
			return strings.Contains(r.plane.lastReport().GetUnwell(), "the hypervisor does not answer")
		})
		before := r.plane.lastReport().GetSequence()
		time.Sleep(time.Hour)
		if after := r.plane.lastReport().GetSequence(); after < before+300 || r.plane.state(a) != ready || len(r.plane.greeted()) != 1 {
			t.Errorf("%d heartbeats in an hour, %v", after-before, r.plane.status(a))
		}
		r.host.SetHung(false)
		r.await("well", time.Minute, func() bool { return r.plane.lastReport().GetUnwell() == "" })
		if !r.runs(a) || r.starts(a) != 1 {
			t.Error("the desktop did not survive it")
		}
	})
}

// TestStartsOfUnknownOutcome: whatever the hypervisor says of a start, there is one VM in the end.
func TestStartsOfUnknownOutcome(t *testing.T) {
	for name, fault := range map[string]fakehost.Fault{
		"refused":            {Refuse: errors.New("no connection")},
		"done, said not":     {Lie: errors.New("connection lost")},
		"hangs, not done":    {Hang: true},
		"hangs, done":        {Hang: true, Done: true},
		"timeout, done":      {Lie: hostagent.ErrTimeout},
		"slow":               {Delay: 8 * time.Second},
		"slower than allows": {Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var left atomic.Int32
			left.Store(2)
			cfg := fakehost.Config{Fault: func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
				if op == fakehost.OpStart && left.Add(-1) >= 0 {
					return fault
				}
				return fakehost.Fault{}
			}}
			story(t, cfg, func(r *rig) {
				a := r.desktop("office-1", 7)
				r.plane.assign(a)
				r.awaitState(a, ready, 2*time.Minute)
				if r.starts(a) != 1 {
					t.Errorf("started %d times", r.starts(a))
				}
			})
		})
	}
}

func TestAStartThatCannotBe(t *testing.T) {
	cfg := fakehost.Config{Fault: func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
		if op == fakehost.OpStart {
			return fakehost.Fault{Refuse: fmt.Errorf("machine type is unknown: %w", hostagent.ErrPermanent)}
		}
		return fakehost.Fault{}
	}}
	story(t, cfg, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, failed, time.Minute)
		if got := r.plane.status(a).GetStatus().GetMessage(); !strings.Contains(got, "machine type is unknown") {
			t.Errorf("failed because %q", got)
		}
	})
}

func TestScreenshots(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		ask := func(id string, generation int64, deadline time.Time) *v1.Ask {
			return &v1.Ask{Id: id, Deadline: timestamppb.New(deadline), Question: &v1.Ask_Screenshot{
				Screenshot: &v1.ScreenshotAsk{Desktop: "office-1", Generation: generation},
			}}
		}
		soon := time.Now().Add(time.Minute)
		r.plane.set(func() {
			r.plane.send(&v1.Assignments{Asks: []*v1.Ask{ask("good", 7, soon), ask("other life", 8, soon), ask("late", 7, time.Now()), {Id: "strange"}}})
		})
		r.await("answered", time.Minute, func() bool { return len(r.plane.answered()) == 3 })
		for _, answer := range r.plane.answered() {
			if good := strings.HasPrefix(string(answer.GetPng()), "\x89PNG"); good != (answer.GetId() == "good") || good == (answer.GetError() != "") {
				t.Errorf("%s: %d bytes, %q", answer.GetId(), len(answer.GetPng()), answer.GetError())
			}
		}
	})
}

func TestFlappingSessionsTouchNothing(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		for range 50 {
			time.Sleep(700 * time.Millisecond)
			r.plane.cut()
		}
		r.awaitState(a, ready, time.Minute)
		if r.starts(a) != 1 {
			t.Errorf("started %d times", r.starts(a))
		}
		// Backoff keeps a control plane that refuses from being knocked down.
		r.plane.set(func() { r.plane.refuse = errors.New("no"); r.plane.hellos = nil })
		r.plane.cut()
		time.Sleep(time.Hour)
		r.plane.set(func() { r.plane.refuse = nil })
		r.await("a session", time.Minute, func() bool { return len(r.plane.greeted()) > 0 })
	})
}
