package hostagent_test

import (
	"strings"
	"testing"
	"time"

	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

func TestImagesThatNothingNeedsGo(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 10)
		digest := a.GetIncarnation().GetDigest()
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.AddBase(strings.Repeat("ab", 32), 1)
		r.await("the other image is listed", time.Minute, func() bool { return len(r.plane.lastReport().GetImages()) == 2 })
		// Nobody said yet what is wanted: nothing goes, however long it takes.
		time.Sleep(72 * time.Hour)
		if n := len(r.plane.lastReport().GetImages()); n != 2 {
			t.Fatalf("%d images left without a word of the control plane", n)
		}
		r.plane.tell(&v1.WantedImages{})
		time.Sleep(2 * time.Hour)
		if images := r.plane.lastReport().GetImages(); len(images) != 1 || images[0] != digest {
			t.Errorf("images %v, want only that of the desktop", images)
		}
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, time.Minute)
		r.plane.drop("office-1")
		time.Sleep(12 * time.Hour)
		if len(r.plane.lastReport().GetImages()) != 1 {
			t.Error("the image went at once with the last desktop")
		}
		time.Sleep(24 * time.Hour)
		if images := r.plane.lastReport().GetImages(); len(images) != 0 {
			t.Errorf("images %v, want none", images)
		}
	})
}

func TestDamagedImageIsMended(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		r.plane.tell(r.want())
		r.await("the base", time.Minute, r.hasBase)
		r.plane.set(func() { r.plane.spoil = func([]byte) []byte { return nil } })
		r.host.Rot(r.plane.manifest.Digest().String())
		r.await("it is said", 8*24*time.Hour, func() bool { return strings.Contains(r.plane.lastReport().GetUnwell(), "found damaged") })
		if r.hasBase() {
			t.Error("a damaged base is listed")
		}
		r.plane.set(func() { r.plane.spoil = nil })
		r.await("it is mended", time.Hour, func() bool { return r.hasBase() && r.plane.lastReport().GetUnwell() == "" })
	})
}
