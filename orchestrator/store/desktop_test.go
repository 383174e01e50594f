package store_test

import (
	"testing"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestStateOfThePresentLife(t *testing.T) {
	const (
		pending = v1.DesktopState_DESKTOP_STATE_PENDING
		placed  = v1.DesktopState_DESKTOP_STATE_PLACED
		ready   = v1.DesktopState_DESKTOP_STATE_READY
	)
	life := func(generation int64, host string) *v1.Incarnation {
		return &v1.Incarnation{Generation: generation, Host: host}
	}
	for name, row := range map[string]struct {
		life   *v1.Incarnation
		status *v1.DesktopStatus
		want   v1.DesktopState
		speaks bool
	}{
		"none":                     {nil, nil, pending, false},
		"none, and a status":       {nil, &v1.DesktopStatus{State: ready}, pending, false},
		"without a host":           {life(5, ""), nil, pending, false},
		"with a host":              {life(5, "kvm1"), nil, placed, false},
		"status of another life":   {life(5, "kvm1"), &v1.DesktopStatus{Generation: 4, State: ready}, placed, false},
		"status of this life":      {life(5, "kvm1"), &v1.DesktopStatus{Generation: 5, State: ready}, ready, true},
		"a status without a state": {life(5, "kvm1"), &v1.DesktopStatus{Generation: 5}, placed, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &v1.Desktop{Incarnation: row.life, Status: row.status}
			if got := store.State(d); got != row.want {
				t.Errorf("state is %v, want %v", got, row.want)
			}
			if speaks := store.Present(d) != nil; speaks != row.speaks {
				t.Errorf("its status speaks of the present life: %v", speaks)
			}
		})
	}
}
