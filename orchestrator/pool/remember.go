package pool

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// maxBootSamples is how many starts a history has, and maxBootBytes what they may take: what kind of host one was on are words of
// that host, and a history that were too large for the store could not be written any more. One takes no more than maxSampleBytes.
const (
	maxBootSamples = 512
	maxBootBytes   = 128 << 10
	maxSampleBytes = 1 << 10
)

const (
	// historyPace is how often a history that goes on is written: it is large. What was not when another began to lead counts as
	// not watched.
	historyPace = 15 * time.Minute
	// fewBoots: a start is written at once while no more are known, since plans are made of them.
	fewBoots = 64
	// bootsOfDay is how many starts of one version on one kind of host are remembered of a day when that many are known: those of
	// many days say more than all those of the last one.
	bootsOfDay = maxBootSamples / 14
)

// unwritten is what a pool's history should be by now.
type unwritten struct {
	since *v1.History // as stored
	at    time.Time   // of the last write
	days  []*v1.DayHistory
	boots []*v1.BootSample
	more  bool // than is stored
}

// remember keeps the pools' histories: who used or waited for desktops, and how starts went. kept is what it returned the last
// time: what was seen since and is not written yet.
func (r *dayRound) remember(now time.Time, view *store.View, known *curves, kept map[string]unwritten) map[string]unwritten {
	began := map[string][]time.Time{}
	for _, claim := range store.All[*v1.Claim](view) {
		if desktop, _ := store.Lookup[*v1.Desktop](view, claim.GetDesktop()); awaitsUser(now, desktop) {
			continue // its user is away, and it takes nothing of a host
		}
		at := claim.GetSince()
		if claim.GetQueued() != nil {
			at = claim.GetQueued()
		}
		began[claim.GetPool()] = append(began[claim.GetPool()], at.AsTime())
	}
	next := map[string]unwritten{}
	for _, pool := range store.All[*v1.Pool](view) {
		name := pool.GetMeta().GetName()
		if pool.GetMeta().GetDeletion() != nil {
			continue
		}
		stored, exists := store.Lookup[*v1.History](view, name)
		if exists && stored.GetMeta().GetCreated().AsTime().Before(pool.GetMeta().GetCreated().AsTime()) {
			continue // another pool's of that name; it is swept
		}
		u := kept[name]
		if !exists || u.since != stored {
			u = unwritten{since: stored, at: u.at, days: stored.GetDays(), boots: stored.GetBoots()}
		}
		var changed, added bool
		u.days, changed = demand.Record(u.days, known.office(view, pool), now, began[name])
		u.boots, added = addBoots(view, pool, u.boots)
		u.more = u.more || changed || added
		since := now.Sub(u.at)
		if due := since < 0 || since >= historyPace || added && len(u.boots) <= fewBoots; !exists || u.more && due {
			u.at, u.more = now, false
			r.write(stored, &v1.History{Meta: &v1.Meta{Name: name}, Days: u.days, Boots: u.boots})
		}
		next[name] = u
	}
	return next
}

// write stores a history in place of another; nil when there is none.
func (r *dayRound) write(stored, history *v1.History) {
	if stored == nil {
		r.objects = append(r.objects, store.Create(history))
		return
	}
	history.Meta = proto.CloneOf(stored.GetMeta())
	r.objects = append(r.objects, store.Update(history))
}

// addBoots adds the starts of the pool's present lives that are not among the samples yet: a start is known by its version,
// its kind of host and the moment at which it was ready, and there may be several of that. Of a day of which enough are known it adds none. Of too many, the newest
// stay; what is older than all of them was there before. It says whether any was added.
func addBoots(view *store.View, pool *v1.Pool, samples []*v1.BootSample) ([]*v1.BootSample, bool) {
	type key struct {
		digest, class string
		ready         time.Time
	}
	taken := map[key]int{}
	full := sync.OnceValue(func() bool { return len(samples) >= maxBootSamples || bytesOf(samples) > maxBootBytes-maxSampleBytes })
	counts := sync.OnceValue(func() map[bootDay]int { return countBoots(samples) })
	var added []*v1.BootSample
	for _, desktop := range view.DesktopsOfPool(pool.GetMeta().GetName()) {
		boot := store.Present(desktop).GetBoot()
		host, ok := store.Lookup[*v1.Host](view, desktop.GetIncarnation().GetHost())
		at, ready := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
		if boot.GetTook().AsDuration() <= 0 || !ok || !ready {
			continue
		}
		class := warmup.HostClass(host.GetStatus().GetCapacity())
		k := key{desktop.GetIncarnation().GetDigest(), class, at}
		if taken[k]++; taken[k] <= samplesOf(samples, k.digest, class, at) {
			continue
		}
		if full() && !at.After(samples[0].GetReady().AsTime()) {
			continue // it was forgotten
		}
		all, day := bootDay{k.digest, class, 0}, dayOfBoot(k.digest, class, at)
		if counts()[all] >= fewBoots && counts()[day] >= bootsOfDay {
			continue
		}
		counts()[all]++
		counts()[day]++
		added = append(added, &v1.BootSample{
			Digest: k.digest, HostClass: class, Took: durationpb.New(boot.GetTook().AsDuration()), AtOnce: boot.GetAtOnce(),
			Ready: timestamppb.New(at), ReadBytes: boot.GetReadBytes(),
		})
	}
	if len(added) == 0 {
		return samples, false
	}
	all := slices.Concat(samples, added)
	slices.SortStableFunc(all, func(a, b *v1.BootSample) int { return a.GetReady().AsTime().Compare(b.GetReady().AsTime()) })
	all = all[max(0, len(all)-maxBootSamples):]
	for size := bytesOf(all); size > maxBootBytes; all = all[1:] {
		size -= proto.Size(all[0])
	}
	return all, true
}

// bootDay is a version on a kind of host, on one day by UTC.
type bootDay struct {
	digest, class string
	day           int64
}

func dayOfBoot(digest, class string, ready time.Time) bootDay {
	return bootDay{digest, class, ready.Unix() / (24 * 60 * 60)}
}

// countBoots counts samples by day, and those of all days as day 0.
func countBoots(samples []*v1.BootSample) map[bootDay]int {
	counts := map[bootDay]int{}
	for _, s := range samples {
		counts[bootDay{s.GetDigest(), s.GetHostClass(), 0}]++
		counts[dayOfBoot(s.GetDigest(), s.GetHostClass(), s.GetReady().AsTime())]++
	}
	return counts
}

// samplesOf counts the samples, which are in the order of time, of a version on a kind of host that was ready then.
func samplesOf(samples []*v1.BootSample, digest, class string, ready time.Time) (n int) {
	i, _ := slices.BinarySearchFunc(samples, ready, func(s *v1.BootSample, at time.Time) int { return s.GetReady().AsTime().Compare(at) })
	for ; i < len(samples) && samples[i].GetReady().AsTime().Equal(ready); i++ {
		if samples[i].GetDigest() == digest && samples[i].GetHostClass() == class {
			n++
		}
	}
	return n
}

func bytesOf(samples []*v1.BootSample) (size int) {
	for _, s := range samples {
		size += proto.Size(s)
	}
	return size
}

// sweep deletes plans that are old, and what pools left that are gone.
func (r *dayRound) sweep(now time.Time, view *store.View) {
	oldest := calendar.DateOf(now.UTC()).Add(-KeptPlans).String()
	for _, plan := range store.All[*v1.Plan](view) {
		pool, ok := store.Lookup[*v1.Pool](view, plan.GetPool())
		if !ok || plan.GetDate() < oldest || plan.GetMeta().GetCreated().AsTime().Before(pool.GetMeta().GetCreated().AsTime()) {
			r.objects = append(r.objects, store.Delete(plan))
		}
	}
	for _, history := range store.All[*v1.History](view) {
		pool, ok := store.Lookup[*v1.Pool](view, history.GetMeta().GetName())
		if !ok || history.GetMeta().GetCreated().AsTime().Before(pool.GetMeta().GetCreated().AsTime()) {
			r.objects = append(r.objects, store.Delete(history))
		}
	}
}
