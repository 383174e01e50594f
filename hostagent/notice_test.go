package hostagent_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

func noticed(a *v1.Assignment, id, text string) *v1.Assignment {
	return with(a, func(a *v1.Assignment) { a.Incarnation.Notice = &v1.Notice{Id: id, Text: text} })
}

// Each notice is shown once, also over restarts of the agent, and costs the desktop nothing.
func TestNoticesAreShownOnce(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(noticed(a, "n1", "told before it was ready"))
		r.awaitState(a, ready, time.Minute)
		want := []string{"/usr/lib/daybreak/notice told before it was ready"}
		shown := func() bool { return slices.Equal(r.host.Tally().Shown[lifeOf(a)], want) }
		r.await("shown", time.Minute, shown)
		r.restart()
		time.Sleep(time.Hour)
		if !shown() {
			t.Errorf("after a restart: %q", r.host.Tally().Shown[lifeOf(a)])
		}
		want = append(want, "/usr/lib/daybreak/notice $(reboot); rm -rf /")
		r.plane.assign(noticed(a, "n2", "$(reboot); rm -rf /"))
		r.await("shown", time.Minute, shown)
		r.plane.assign(a) // taken back
		r.plane.assign(noticed(a, "n2", "$(reboot); rm -rf /"))
		time.Sleep(time.Hour)
		if !shown() || r.starts(a) != 1 || r.plane.state(a) != ready {
			t.Errorf("%q, started %d times, %v", r.host.Tally().Shown[lifeOf(a)], r.starts(a), r.plane.state(a))
		}
	})
}

func TestWaysToShowANotice(t *testing.T) {
	for name, test := range map[string]struct {
		lacks []string
		want  []string
	}{
		"Linux":   {[]string{"/usr/lib/daybreak/notice"}, []string{"/usr/bin/wall -- hello"}},
		"Windows": {[]string{"/usr/lib/daybreak/notice", "/usr/bin/wall"}, []string{`C:\Windows\System32\msg.exe * hello`}},
		"nothing": {[]string{"/usr/lib/daybreak/notice", "/usr/bin/wall", `C:\Windows\System32\msg.exe`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			boot := func(hostagent.Life) fakehost.Boot { return fakehost.Boot{After: 5 * time.Second, Lacks: test.lacks} }
			story(t, fakehost.Config{Boot: boot}, func(r *rig) {
				a := r.desktop("office-1", 7)
				r.plane.assign(noticed(a, "n1", "hello"))
				r.awaitState(a, ready, time.Minute)
				time.Sleep(time.Hour)
				if got := r.host.Tally().Shown[lifeOf(a)]; !slices.Equal(got, test.want) || r.plane.state(a) != ready {
					t.Errorf("shown %q, want %q; %v", got, test.want, r.plane.state(a))
				}
			})
		})
	}
}

// A guest that does not answer is asked a few times, and a hung one keeps nobody from ending the desktop.
func TestNoticesAreBounded(t *testing.T) {
	for name, fault := range map[string]fakehost.Fault{
		"refuses": {Refuse: errors.New("the guest agent is not connected")},
		"hangs":   {Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			cfg := fakehost.Config{Fault: func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
				if op != fakehost.OpExec {
					return fakehost.Fault{}
				}
				asked.Add(1)
				return fault
			}}
			story(t, cfg, func(r *rig) {
				a := r.desktop("office-1", 7)
				r.plane.assign(noticed(a, "n1", "hello"))
				r.awaitState(a, ready, time.Minute)
				time.Sleep(time.Hour)
				if asked.Load() == 0 || asked.Load() > 12 || r.plane.state(a) != ready {
					t.Errorf("asked %d times, %v", asked.Load(), r.plane.state(a))
				}
				r.plane.assign(noticed(a, "n2", "hello again"))
				time.Sleep(time.Second)
				r.plane.assign(toBeDeleted(a))
				r.awaitState(a, deleted, time.Minute)
			})
		})
	}
}
