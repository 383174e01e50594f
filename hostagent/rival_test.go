package hostagent_test

import (
	"path/filepath"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

// A newer life waits for the VM of an older one that has failed, also while the hypervisor's lists lack it, and also when
// nothing but its disk is known any more.
func TestANewerLifeWaitsForAFailedOnesVM(t *testing.T) {
	for name, forgets := range map[string]bool{"known": false, "without the journal": true} {
		t.Run(name, func(t *testing.T) {
			boot := func(life hostagent.Life) fakehost.Boot { return fakehost.Boot{Hangs: life.Generation == 7} }
			story(t, fakehost.Config{Boot: boot}, func(r *rig) {
				old := r.desktop("office-1", 7)
				r.plane.assign(old)
				r.awaitState(old, failed, 10*time.Minute)
				r.plane.forget("office-1")
				r.plane.cut()
				r.await("orphan", time.Minute, func() bool { return r.plane.status(old).GetOrphan() })
				if forgets {
					r.crash()
					r.path = filepath.Join(filepath.Dir(r.path), "another.db")
					r.host.EmptyLists(1000)
					r.start()
					r.await("found again", time.Minute, func() bool { return r.plane.status(old).GetOrphan() })
				}
				r.host.EmptyLists(1000)
				young := with(old, func(a *v1.Assignment) { a.Incarnation.Generation = 9 })
				r.plane.assign(young)
				r.awaitState(young, prepared, time.Minute)
				time.Sleep(10 * time.Minute)
				if got := r.plane.status(young).GetStatus(); got.GetState() != prepared || r.starts(young) != 0 || len(r.host.Tally().Clashes) != 0 {
					t.Errorf("beside a VM that the lists lack: %v, clashes %v", got, r.host.Tally().Clashes)
				}
				r.host.Kill(lifeOf(old))
				r.awaitState(young, ready, 2*time.Minute)
			})
		})
	}
}

// A stopped life was proven gone: a newer one waits for nothing, also after a restart of the agent.
func TestANewerLifeDoesNotWaitForAStoppedOne(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		old := r.desktop("office-1", 7)
		r.plane.assign(old)
		r.awaitState(old, ready, time.Minute)
		r.plane.assign(desired(old, v1.DesiredState_DESIRED_STATE_STOPPED))
		r.awaitState(old, stopped, time.Minute)
		r.plane.forget("office-1")
		r.restart()
		r.await("orphan", time.Minute, func() bool { return r.plane.status(old).GetOrphan() })
		young := with(old, func(a *v1.Assignment) { a.Incarnation.Generation = 9 })
		r.plane.assign(young)
		r.awaitState(young, ready, 2*time.Minute)
	})
}
