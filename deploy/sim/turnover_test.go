package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// A decision may be so old when it is written that what others did meanwhile cannot be held against it; longer when the
// control plane hears late of what is stored.
const (
	grace     = 15 * time.Second
	slowGrace = 90 * time.Second
)

// standing is what a desktop is to those who want one.
type standing int

const (
	elsewhere standing = iota
	free               // ready, nobody holds it and nobody used it
	out                // being made anew
)

// standing is computed from what is stored, and from nothing that the product says of it.
func (h *history) standing(d *v1.Desktop) standing {
	in, status := d.GetIncarnation(), d.GetStatus()
	state := v1.DesktopState_DESKTOP_STATE_UNSPECIFIED
	if status.GetGeneration() == in.GetGeneration() {
		state = status.GetState()
	}
	gone := in.GetHost() != "" && h.hosts[in.GetHost()] == nil
	switch {
	case d == nil:
		return elsewhere
	case gone || state == v1.DesktopState_DESKTOP_STATE_DELETED:
		return out
	case state == v1.DesktopState_DESKTOP_STATE_LOST:
		return elsewhere
	case in.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
		return out
	case state <= v1.DesktopState_DESKTOP_STATE_STARTING && in.GetReason() != "new" && in.GetUnplacedReason() == "":
		return out
	case state == v1.DesktopState_DESKTOP_STATE_READY && d.GetClaim() == nil && in.GetUsedBy() == "" && !status.GetPausedIo():
		return free
	}
	return elsewhere
}

// past is what a pool was from a time on.
type past struct {
	at   time.Time
	pool *v1.Pool
}

// turnover is what happened to the desktops of one pool within the grace, beside what moves did.
type turnover struct {
	pools []past
	left  []time.Time // a desktop ceased to be free
	fell  []time.Time // a desktop went out of service
}

func (t *turnover) forget(before time.Time) {
	for len(t.pools) > 1 && !t.pools[1].at.After(before) {
		t.pools = t.pools[1:]
	}
	for len(t.left) > 0 && t.left[0].Before(before) {
		t.left = t.left[1:]
	}
	for len(t.fell) > 0 && t.fell[0].Before(before) {
		t.fell = t.fell[1:]
	}
}

func (h *history) turnover(pool string) *turnover {
	t := h.turnovers[pool]
	if t == nil {
		t = &turnover{}
		h.turnovers[pool] = t
	}
	length := grace
	if h.slow() {
		length = slowGrace
	}
	t.forget(time.Now().Add(-length))
	return t
}

// checkTurnover holds what became of a desktop against the limits of its pool: invariant 7. It is called when the change
// is in the history.
func (h *history) checkTurnover(was *v1.Desktop, before standing, is *v1.Desktop) {
	t := h.turnover(is.GetSpec().GetPool())
	old, new := was.GetIncarnation(), is.GetIncarnation()
	ended := old.GetGeneration() == new.GetGeneration() && old.GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED &&
		new.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED
	after := h.standing(is)
	h.noteReclaim(was, is)
	if old.GetUnlessUsedSince() != nil && new.GetUnlessUsedSince() == nil && new.GetDesired() == v1.DesiredState_DESIRED_STATE_READY {
		delete(h.excused, lifeOf(is)) // its host declined
	}
	switch {
	case ended && is.GetClaim().GetReclaim().GetActing():
		h.checkReclaim(is)
	case ended && is.GetClaim() != nil:
		h.checkRestart(was)
	case ended && before == free:
		h.checkMove(t, was)
		return // it counts as a move, not as something that came between
	}
	if before == free && after != free {
		t.left = append(t.left, time.Now())
	}
	if before != out && after == out && !ended {
		t.fell = append(t.fell, time.Now())
	}
}

// checkMove: a ready desktop that nobody used was taken away.
func (h *history) checkMove(t *turnover, d *v1.Desktop) {
	h.moves++
	name, pool := d.GetMeta().GetName(), d.GetSpec().GetPool()
	count := map[standing]int{}
	all := 0
	for _, other := range h.desktops {
		if other.GetSpec().GetPool() == pool {
			count[h.standing(other)]++
			all++
		}
	}
	meant := false
	for _, p := range t.pools {
		if all > int(p.pool.GetSpec().GetDesktops()) {
			return // too many
		}
		release := p.pool.GetRelease()
		to := release.GetVersion()
		if release.GetNext() != 0 {
			to = release.GetNext()
		}
		meant = meant || release.GetMoving() && d.GetIncarnation().GetVersion() != to
	}
	spec := h.pools[pool].GetSpec()
	if spec.GetSchedule() != nil && !meant {
		return // the schedule took it away: checkDay knows whether too many went
	}
	if !meant {
		h.problem("7", "%s was ready and unused with version %d, and was taken away; its pool has %v", name, d.GetIncarnation().GetVersion(),
			h.pools[pool].GetRelease())
	}
	if left := count[free] + len(t.left); left < int(spec.GetMinReady()) {
		h.problem("7", "%s was taken away, and pool %s has %d ready desktops for users left (%d were taken by others meanwhile), min_ready is %d",
			name, pool, count[free], len(t.left), spec.GetMinReady())
	}
	if n := count[out] - len(t.fell); n > int(spec.GetMaxUnavailable()) {
		h.problem("7", "%s was taken away, and %d desktops of pool %s are out of service (%d for other reasons), max_unavailable is %d", name,
			count[out], pool, len(t.fell), spec.GetMaxUnavailable())
	}
}

// checkRestart: a desktop was taken away from under its user, who must have been told in time.
func (h *history) checkRestart(d *v1.Desktop) {
	h.restarts++
	name, user, key := d.GetMeta().GetName(), d.GetClaim().GetUser(), lifeOf(d)
	if d.GetStatus().GetGeneration() != key.generation && h.states[d.GetIncarnation().GetVersion()] == v1.VersionState_VERSION_STATE_WITHDRAWN {
		h.excused[key] = true // it was not started yet, and must not be
		return
	}
	if !h.ready[key] && d.GetStatus().GetGeneration() == key.generation && d.GetStatus().GetState() == v1.DesktopState_DESKTOP_STATE_FAILED {
		h.excused[key] = true // it followed one that its user lost, and nobody ever worked on it
		return
	}
	policy := h.pools[d.GetSpec().GetPool()].GetSpec().GetRollout().GetInUse()
	at, announced := d.GetClaim().GetRestartAt(), h.announced[key]
	switch {
	case at == nil || announced.IsZero():
		h.problem("7", "%s is restarted while %s holds it, who was told nothing", name, user)
	case time.Now().Before(at.AsTime()):
		h.problem("7", "%s is restarted while %s holds it, before the time that was told, %v", name, user, at.AsTime())
	case time.Since(announced) < policy.GetNotice().AsDuration():
		h.problem("7", "%s is restarted %v after %s was told, the notice is %v", name, time.Since(announced), user, policy.GetNotice().AsDuration())
	case policy.GetMode() != v1.InUseMode_IN_USE_MODE_REMIND && policy.GetDeadline() == nil:
		h.problem("7", "%s is restarted while %s holds it, and its pool waits for users", name, user)
	}
	h.excused[key] = true
}

// noteAnnouncement remembers since when a user has known of a restart.
func (h *history) noteAnnouncement(d *v1.Desktop) {
	key := lifeOf(d)
	switch {
	case d.GetClaim().GetRestartAt() == nil:
		delete(h.announced, key)
	case h.announced[key].IsZero():
		h.announced[key] = time.Now()
		if d.GetIncarnation().GetNotice().GetText() == "" {
			h.problem("7", "%s is to be restarted at %v, and its guest is told nothing", d.GetMeta().GetName(), d.GetClaim().GetRestartAt().AsTime())
		}
	}
}

// checkAdmission: a life that begins with the next version is one of those that are admitted to it; none begins with a
// version that was withdrawn before.
func (h *history) checkAdmission(d *v1.Desktop) {
	name, pool, version := d.GetMeta().GetName(), d.GetSpec().GetPool(), d.GetIncarnation().GetVersion()
	if since, ok := h.withdrawn[version]; ok && time.Since(since) > slowGrace && d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY {
		h.problem("5", "%s: generation %d begins with version %d, which was withdrawn %v ago", name, d.GetIncarnation().GetGeneration(), version, time.Since(since))
	}
	t := h.turnover(pool)
	admitted, was := -1, false
	for _, p := range t.pools {
		release := p.pool.GetRelease()
		if release.GetNext() == version {
			admitted = max(admitted, int(release.GetAdmitted()))
		}
		was = was || release.GetVersion() == version || release == nil
	}
	if was || len(t.pools) == 0 {
		return
	}
	n := 0
	for _, other := range h.desktops {
		if other.GetSpec().GetPool() == pool && other.GetIncarnation().GetVersion() == version {
			n++
		}
	}
	if n > admitted {
		h.problem("7", "%s: generation %d begins with version %d as desktop %d of pool %s, %d are admitted", name, d.GetIncarnation().GetGeneration(),
			version, n, pool, max(admitted, 0))
	}
}

// noteFailure counts the lives that failed, by pool and version.
func (h *history) noteFailure(d *v1.Desktop) {
	key, pool := lifeOf(d), d.GetSpec().GetPool()
	if d.GetStatus().GetGeneration() != key.generation || d.GetStatus().GetState() != v1.DesktopState_DESKTOP_STATE_FAILED || h.dead[key] {
		return
	}
	h.dead[key] = true
	if h.failures[pool] == nil {
		h.failures[pool] = map[uint32]int{}
	}
	h.failures[pool][d.GetIncarnation().GetVersion()]++
}

// noteImage remembers what may be run.
func (h *history) noteImage(image *v1.Image) {
	for _, version := range image.GetStatus().GetVersions() {
		if h.states[version.GetNumber()] != version.GetState() && version.GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN {
			h.withdrawn[version.GetNumber()] = time.Now()
		}
		h.states[version.GetNumber()] = version.GetState()
		if version.GetState() == v1.VersionState_VERSION_STATE_READY {
			h.published[version.GetDigest()] = true
		}
	}
}

// noteRollout: what takes another rollout back is never taken back itself.
func (h *history) noteRollout(r *v1.Rollout) {
	if was := h.rollouts[r.GetMeta().GetName()]; was.GetStatus().GetPhase() != r.GetStatus().GetPhase() {
		h.phases[r.GetStatus().GetPhase()]++
	}
	h.rollouts[r.GetMeta().GetName()] = r
	if r.GetSpec().GetRollback() && r.GetStatus().GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_ROLLED_BACK {
		h.problem("7", "rollback %s was taken back", r.GetMeta().GetName())
	}
}

// activeRollout is the one that a pool's release names; nil when there is none.
func (h *history) activeRollout(pool string) *v1.Rollout {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rollouts[h.pools[pool].GetRelease().GetRollout()]
}

// told says what rollouts did.
func (h *history) told() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf("%d ready desktops moved, %d in use were restarted, rollouts:", h.moves, h.restarts)
	for _, phase := range slices.Sorted(maps.Keys(h.phases)) {
		text += fmt.Sprintf(" %s %d", strings.ToLower(strings.TrimPrefix(phase.String(), "ROLLOUT_PHASE_")), h.phases[phase])
	}
	return text
}

// soundVersions counts the versions that serve and may be run.
func (h *history) soundVersions(flaws map[uint32]flaw) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for number, state := range h.states {
		if state == v1.VersionState_VERSION_STATE_READY && flaws[number] == sound {
			n++
		}
	}
	return n
}

func (h *history) state(version uint32) v1.VersionState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[version]
}
