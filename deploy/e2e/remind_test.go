//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// reminded moves the desktop under a user, by the policy for it.
func (s *rolloutStory) reminded(t *testing.T) {
	s.apply(t, strings.Replace(moving, "monitor: 4s}", "monitor: 4s, inUse: {mode: remind, notice: 20s, deferrals: 1, deferBy: 15s}}", 1))
	s.cli(t, "image", "publish", "micro", "2")
	told := func() (name string, d *v1.Desktop) {
		found, err := s.tryDesktops("desk")
		if err != nil {
			return "", nil
		}
		for name, d := range found {
			if d.GetClaim().GetRestartAt() != nil {
				return name, d
			}
		}
		return "", nil
	}
	var name string
	var before *v1.Desktop
	s.eventually(t, 8*time.Minute, "the user is told", func() (bool, string) {
		name, before = told()
		return before != nil, "nobody is told of a restart"
	})
	s.cli(t, "defer", "desk", "--user", "worker")
	if out, err := s.try("defer", "desk", "--user", "worker"); err == nil {
		t.Errorf("the restart was put off twice: %s", out)
	}
	if _, now := told(); now != nil && !now.GetClaim().GetRestartAt().AsTime().After(before.GetClaim().GetRestartAt().AsTime()) {
		t.Errorf("the restart was put off from %v to %v", before.GetClaim(), now.GetClaim())
	}
	notices := s.guestRun(t, before.GetIncarnation().GetHost(), before.GetSpec().GetVmUuid(), "cat /run/daybreak/notices")
	if notices == "" {
		t.Error("the guest showed no notice")
	}
	s.watchWaves(t, 10*time.Minute, 2, func(ro *v1.Rollout, _ map[string]*v1.Desktop) bool {
		return ro.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_DONE
	})
	after := s.settled(t, "desk", seats, time.Minute)[name]
	if after.GetClaim().GetUser() != "worker" || after.GetIncarnation().GetVersion() != 2 {
		t.Errorf("after the restart %s is %v with claim %v", name, after.GetIncarnation(), after.GetClaim())
	}
	s.everyGuest(t, func(string) string { return "2" })
}
