package hostagent_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

func newPublisher(t *testing.T) *sign.Key {
	t.Helper()
	key, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func trusting(t *testing.T, keys ...*sign.Key) func(*hostagent.Config) {
	t.Helper()
	publishers, err := sign.NewPublishers()
	for _, key := range keys {
		publishers, err = sign.NewPublishers(append(publishers.Keys(), key.Public())...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg *hostagent.Config) { cfg.Publishers = publishers }
}

// signedBy returns the assignment with a publisher's word for it.
func signedBy(t *testing.T, key *sign.Key, a *v1.Assignment) *v1.Assignment {
	t.Helper()
	signature, err := key.Sign(a.GetIncarnation().GetImage(), a.GetIncarnation().GetDigest())
	if err != nil {
		t.Fatal(err)
	}
	return with(a, func(a *v1.Assignment) { a.Incarnation.Signatures = []*v1.Signature{signature} })
}

// TestOnlySignedVersionsRun: nothing is fetched, made or started for a version that no pinned key signed, even when its base
// lies on the host already.
func TestOnlySignedVersionsRun(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		key, stranger := newPublisher(t), newPublisher(t)
		r.configure = trusting(t, key)
		r.restart()
		refused := map[string]*v1.Assignment{
			"unsigned": r.desktop("unsigned", 7),
			"stranger": signedBy(t, stranger, r.desktop("stranger", 7)),
			"renamed":  with(signedBy(t, key, r.desktop("renamed", 7)), func(a *v1.Assignment) { a.Incarnation.Image = "j" }),
			"borrowed": with(signedBy(t, stranger, r.desktop("borrowed", 7)), func(a *v1.Assignment) { a.Incarnation.Signatures[0].Key = key.Public() }),
		}
		refuse := func() {
			for name, a := range refused {
				r.plane.assign(a)
				r.awaitState(a, failed, time.Minute)
				message := r.plane.status(a).GetStatus().GetMessage()
				if !strings.Contains(message, "not signed by a publisher who is trusted here") || !strings.Contains(message, "--publisher-key") {
					t.Errorf("%s: %s", name, message)
				}
				if r.starts(a) != 0 {
					t.Errorf("%s: was started", name)
				}
			}
		}
		refuse()
		if bases, err := r.host.Bases(t.Context()); err != nil || len(bases) > 0 {
			t.Errorf("fetched %v, %v", bases, err)
		}
		good := signedBy(t, key, r.desktop("good", 7))
		r.plane.assign(good)
		r.awaitState(good, ready, time.Minute)
		for name, a := range refused {
			refused[name] = with(a, func(a *v1.Assignment) { a.Incarnation.Generation = 8 })
		}
		refuse()
		if overlays, err := r.host.Overlays(t.Context()); err != nil || len(overlays) != 1 {
			t.Errorf("overlays %v, %v", overlays, err)
		}
	})
}

// TestNoKeyNothingNew: a host that pinned nobody says so and starts nothing; what runs goes on, and can be ended.
func TestNoKeyNothingNew(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		key := newPublisher(t)
		old := signedBy(t, key, r.desktop("old", 7))
		prepared := desired(signedBy(t, key, r.desktop("prepared", 7)), v1.DesiredState_DESIRED_STATE_PREPARED)
		r.plane.assign(old, prepared)
		r.awaitState(old, ready, time.Minute)
		r.awaitState(prepared, v1.DesktopState_DESKTOP_STATE_PREPARED, time.Minute)
		r.configure = trusting(t)
		r.restart()
		r.await("the host says so", time.Minute, func() bool {
			return strings.Contains(r.plane.lastReport().GetUnwell(), "no publisher's key is pinned")
		})
		fresh := signedBy(t, key, r.desktop("fresh", 9))
		r.plane.assign(fresh, desired(prepared, v1.DesiredState_DESIRED_STATE_READY))
		r.awaitState(fresh, failed, time.Minute)
		r.awaitState(prepared, failed, time.Minute)
		if !r.runs(old) || r.plane.state(old) != ready || r.starts(prepared)+r.starts(fresh) != 0 {
			t.Errorf("old runs: %v, started: %+v", r.runs(old), r.host.Tally().Starts)
		}
		r.plane.assign(toBeDeleted(old), toBeDeleted(fresh), toBeDeleted(prepared))
		for _, a := range []*v1.Assignment{old, fresh, prepared} {
			r.awaitState(a, deleted, 2*time.Minute)
		}
	})
}

// TestOnlySignedVersionsAreFetchedAhead: of the versions that are wanted ahead only signed ones come.
func TestOnlySignedVersionsAreFetchedAhead(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		key := newPublisher(t)
		r.configure = trusting(t, key)
		digest := r.plane.manifest.Digest().String()
		signature, err := key.Sign("i", digest)
		if err != nil {
			t.Fatal(err)
		}
		wanted := &v1.WantedImage{Image: "j", Digest: digest, Signatures: []*v1.Signature{signature}}
		r.plane.set(func() { r.plane.wanted = &v1.WantedImages{Images: []*v1.WantedImage{wanted}} })
		r.restart()
		has := func() bool {
			bases, err := r.host.Bases(t.Context())
			return err == nil && slices.Contains(bases, digest)
		}
		time.Sleep(time.Hour) // of the bubble's time
		if has() {
			t.Error("fetched under a name that nobody signed")
		}
		wanted = &v1.WantedImage{Image: "i", Digest: digest, Signatures: []*v1.Signature{signature}}
		r.plane.set(func() { r.plane.wanted = &v1.WantedImages{Images: []*v1.WantedImage{wanted}} })
		r.plane.cut()
		r.await("fetched", time.Minute, has)
	})
}

// TestCheckImage: the same check is there for what does not come as an assignment.
func TestCheckImage(t *testing.T) {
	publishers, err := sign.NewPublishers(newPublisher(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	err = hostagent.CheckImage(publishers, "i", strings.Repeat("0", 64), nil)
	if !errors.Is(err, hostagent.ErrPermanent) || !errors.Is(err, sign.ErrUntrusted) {
		t.Errorf("unsigned: %v", err)
	}
	if err := hostagent.CheckImage(nil, "i", strings.Repeat("0", 64), nil); err != nil {
		t.Errorf("nobody checks: %v", err)
	}
}
