package fakehost_test

import (
	"bytes"
	"strconv"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
)

func TestContract(t *testing.T) {
	hosttest.Run(t, func(t *testing.T) *hosttest.Rig {
		host := fakehost.New(fakehost.Config{
			KeepContent: true, Deadline: 200 * time.Millisecond, PowerOff: 50 * time.Millisecond,
			Boot: func(hostagent.Life) fakehost.Boot {
				return fakehost.Boot{After: 20 * time.Millisecond, Output: "hello\n"}
			},
		})
		t.Cleanup(func() {
			for _, wrong := range host.Tally().Wrongs {
				t.Error(wrong)
			}
		})
		return &hosttest.Rig{
			Hypervisor: host, Guest: host, Disks: host, Builds: host, BuildGuest: host, BuildDisks: host,
			Image:        hosttest.NewImage(t, bytes.NewReader(make([]byte, 2*images.ChunkBytes)), 2*images.ChunkBytes),
			ImageVersion: fakehost.ImageVersion, Argv: []string{"hello"}, Output: "hello\n", VNCDir: "/fake/vnc",
			Patience: 5 * time.Second, Deadline: time.Second,
			KillGuest: func(life hostagent.Life) { host.Kill(life) },
			KillHypervisor: func() {
				host.SetDown(true)
				time.AfterFunc(150*time.Millisecond, func() { host.SetDown(false) })
			},
			StopHypervisor: func() func() {
				host.SetHung(true)
				return func() { host.SetHung(false) }
			},
			FillStore: func() func() {
				host.SetFull(true)
				return func() { host.SetFull(false) }
			},
			WriteMuch: []string{fakehost.WriteMuch},
			Clock:     func(_ *testing.T, life hostagent.Life) time.Time { return time.Now().Add(-host.ClockBehind(life)) },
			Use: func(t *testing.T, life hostagent.Life) {
				host.SetSession(life, hostagent.Session{UsersKnown: true, Users: 1, InputKnown: true, InputIdle: time.Hour})
				got, err := host.Session(t.Context(), life)
				if err != nil || !got.UsersKnown || got.Users != 1 || !got.InputKnown || got.InputIdle < time.Hour || got.InputIdle > time.Hour+time.Minute {
					t.Errorf("Session = %+v, %v", got, err)
				}
			},
			WriteFile: func(path, content string, status int) []string {
				return []string{fakehost.WriteFile, path, content, strconv.Itoa(status)}
			},
		}
	})
}
