package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	"daybreak/images"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// flaw is what is wrong with a version.
type flaw int

const (
	sound      flaw = iota
	neverReady      // the guest never answers
	probeFails      // the probe of those pools that have one fails
	diesSoon        // ready, and dead before a minute is over
	flaws
)

func (f flaw) String() string {
	return [...]string{"sound", "never ready", "failing its probe", "dying soon"}[f]
}

// deathAfter is how long a desktop of a version that dies soon is ready: shorter than rollouts watch a wave.
const deathAfter = 20 * time.Second

// policies are how the pools move, and what is left of them meanwhile.
func policies() map[string]func(*v1.PoolSpec) {
	minute := durationpb.New(time.Minute)
	return map[string]func(*v1.PoolSpec){
		"lgwan": func(p *v1.PoolSpec) {
			p.MaxUnavailable, p.MinReady = max(1, p.Desktops/5), p.Desktops/20
			p.Rollout = &v1.RolloutPolicy{Monitor: minute, MaxFailures: 3, OnFailure: v1.OnFailure_ON_FAILURE_ROLL_BACK, InUse: &v1.InUse{
				Mode: v1.InUseMode_IN_USE_MODE_REMIND, Notice: durationpb.New(2 * time.Minute), Deferrals: 2, DeferBy: durationpb.New(3 * time.Minute),
			}}
		},
		"juki": func(p *v1.PoolSpec) {
			p.MaxUnavailable, p.MinReady = max(1, p.Desktops/4), 1
			p.Rollout = &v1.RolloutPolicy{Monitor: minute, Waves: []string{"2", "25%"}}
		},
		"net": func(p *v1.PoolSpec) {
			p.MaxUnavailable = max(1, p.Desktops/4)
			p.Readiness = &v1.Readiness{Probe: []string{"/usr/lib/daybreak/session-is-up"}}
			p.Rollout = &v1.RolloutPolicy{Monitor: minute, MaxFailures: 2, InUse: &v1.InUse{
				Notice: durationpb.New(3 * time.Minute), Deadline: durationpb.New(15 * time.Minute),
			}}
		},
		"data": func(p *v1.PoolSpec) {
			p.MaxUnavailable, p.MinReady = 1, 1
			p.Rollout = &v1.RolloutPolicy{Monitor: minute, OnFailure: v1.OnFailure_ON_FAILURE_ROLL_BACK}
		},
		"tight": func(p *v1.PoolSpec) {
			p.MaxUnavailable, p.MinReady = 2, 1
			p.Rollout = &v1.RolloutPolicy{Monitor: minute, MaxFailures: 1}
		},
	}
}

// publish brings a new version of the image and makes it the current one.
func (s *sim) publish(f flaw) {
	codec, err := images.NewCodec()
	if err != nil {
		s.t.Fatal(err)
	}
	s.versions++
	s.publishedAt = time.Now()
	plain := bytes.Repeat([]byte{byte(s.versions), byte(s.versions >> 8)}, images.ChunkBytes/2)
	digest := images.Sum(plain)
	manifest, err := images.NewManifest(images.ChunkBytes, []images.Digest{digest})
	if err != nil {
		s.t.Fatal(err)
	}
	s.shelf.put(manifest, digest, codec.Seal(plain))
	s.mu.Lock()
	s.flaws[manifest.Digest().String()], s.flawOf[s.versions] = f, f
	s.mu.Unlock()
	s.changeImage(func(status *v1.ImageStatus) {
		status.Versions = append(status.Versions, &v1.ImageVersion{
			Number: s.versions, Digest: manifest.Digest().String(), SizeBytes: manifest.Size(), State: v1.VersionState_VERSION_STATE_READY,
		})
		status.Current = s.versions
	})
}

func (s *sim) changeImage(change func(*v1.ImageStatus)) {
	_, err := store.Modify(s.ctx, store.Open(s.backend.Memory, store.WriterRollout), "debian", func(image *v1.Image) error {
		if image.Status == nil {
			image.Status = &v1.ImageStatus{}
		}
		change(image.Status)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// withdraw takes a version back and makes the newest sound one the current one.
func (s *sim) withdraw(number uint32) {
	s.changeImage(func(status *v1.ImageStatus) {
		status.Versions[number-1].State = v1.VersionState_VERSION_STATE_WITHDRAWN
		status.Current = 0
		for _, version := range status.GetVersions() {
			if version.GetState() == v1.VersionState_VERSION_STATE_READY && s.flawOf[version.GetNumber()] == sound {
				status.Current = version.GetNumber()
			}
		}
	})
}

// spoil gives a life the ways of its version.
func (s *sim) spoil(n *node, life hostagent.Life, digest string, boot fakehost.Boot) fakehost.Boot {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.flaws[digest] {
	case neverReady:
		boot.Hangs = true
	case probeFails:
		boot.Probe, boot.Output = 1, "no session"
	case diesSoon:
		s.dooms = append(s.dooms, doom{time.Now().Add(boot.After + deathAfter), n, life})
	}
	return boot
}

// doom is when a life with a version that dies soon does.
type doom struct {
	at   time.Time
	node *node
	life hostagent.Life
}

// collect ends the lives whose time has come.
func (s *sim) collect(now time.Time) {
	s.mu.Lock()
	var due, later []doom
	for _, d := range s.dooms {
		if d.at.After(now) {
			later = append(later, d)
		} else {
			due = append(due, d)
		}
	}
	s.dooms = later
	s.mu.Unlock()
	for _, d := range due {
		if runs(d.node, d.life) {
			s.truth.killed(d.life)
			d.node.host.Kill(d.life)
		}
	}
}

// isBroken: a version does not serve a pool.
func (s *sim) isBroken(pool string, version uint32) bool {
	f := s.flawOf[version]
	return f == neverReady || f == diesSoon || f == probeFails && pool == "net"
}

// attend is what an admin does about rollouts that stand still: a sound version, kept back by the machines' failures, goes
// on; a broken one goes back.
func (s *sim) attend() {
	steward := s.steward()
	for _, pool := range s.pools {
		r := s.history.activeRollout(pool.name)
		if r.GetStatus().GetPhase() != v1.RolloutPhase_ROLLOUT_PHASE_HALTED {
			continue
		}
		var err error
		to := r.GetSpec().GetToVersion()
		what := fmt.Sprintf("rollout %s to version %d", r.GetMeta().GetName(), to)
		switch {
		case !s.isBroken(pool.name, to) && s.history.state(to) == v1.VersionState_VERSION_STATE_READY:
			_, err = steward.Resume(s.ctx, time.Now(), pool.name, "admin")
			what += " is resumed"
		case !r.GetSpec().GetRollback() && s.history.state(r.GetSpec().GetFromVersion()) == v1.VersionState_VERSION_STATE_READY:
			_, err = steward.RollBack(s.ctx, time.Now(), pool.name, "admin", "it is broken")
			what += " is taken back"
		default:
			s.publish(sound)
			what += fmt.Sprintf(" is superseded by version %d", s.versions)
		}
		if err != nil && !errors.Is(err, rollout.ErrRefused) && !errors.Is(err, store.ErrConflict) {
			s.problem("7", "%s: %v", what, err)
		}
		s.did(what)
	}
}

func (s *sim) steward() *rollout.Steward {
	return rollout.NewSteward(store.Open(s.backend.Memory, store.WriterRollout), store.Open(s.backend.Memory, store.WriterAPI))
}

// offRelease says which desktop does not run what its pool should, or which rollout goes on; "" when none does. The caller
// holds the history's lock.
func (h *history) offRelease(pool string) string {
	release := h.pools[pool].GetRelease()
	if release == nil {
		return fmt.Sprintf("pool %s has no release", pool)
	}
	if r := h.rollouts[release.GetRollout()]; r != nil && r.GetStatus().GetPhase() != v1.RolloutPhase_ROLLOUT_PHASE_HALTED {
		return fmt.Sprintf("%s of pool %s goes on: %s", r.GetMeta().GetName(), pool, r.GetStatus().GetMessage())
	}
	for name, d := range h.desktops {
		version := d.GetIncarnation().GetVersion()
		if d.GetSpec().GetPool() == pool && version != release.GetVersion() && (version != release.GetNext() || version == 0) {
			return fmt.Sprintf("%s runs version %d, its pool %v", name, version, release)
		}
	}
	return ""
}

// checkExposure: no more lives failed with a version that does not serve than the canary has, and may fail.
func (s *sim) checkExposure() {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	for _, p := range s.pools {
		policy := s.history.pools[p.name].GetSpec().GetRollout()
		limit := rollout.Waves(policy, p.seats)[0] + int(policy.GetMaxFailures()) + exposureSlack
		for version, n := range s.history.failures[p.name] {
			if s.isBroken(p.name, version) && n > limit {
				s.problem("7", "version %d, which is %v, took %d lives of pool %s; the canary and what may fail are %d", version,
					s.flawOf[version], n, p.name, limit)
			}
		}
	}
}

// exposureSlack are lives that failed between a failure and the halt.
const exposureSlack = 2
