package placement

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A host on which everything fails is soon the emptiest, and would get all that others need. So it is the last choice after
// so many lives failed to get ready there within the window, and none that began after them did. What fails because of what
// it is (an image, a readiness probe) fails everywhere, and says nothing about the host: failures count against a host only
// for lives that try the same, until what failed there is ready on another host and has not failed elsewhere since.
const (
	failuresToShun = 3
	shunWindow     = 10 * time.Minute
)

// ReasonShunned is that of the event which tells that a host is the last choice from now on.
const ReasonShunned = "HostShunned"

// spell is a time in which a host is the last choice.
type spell struct {
	from, until time.Time // without a break; until when nothing more fails
	failures    int       // lives that failed within the window
	alike       bool      // the last choice only for lives that try the same as those that failed
}

// shun finds the hosts that are the last choice for desktops that wait. It looks back from when the newest of their lives
// began, so that a plan follows from its view alone.
func (l *ledger) shun(view *store.View, waiting []*v1.Desktop) {
	if len(waiting) == 0 {
		return
	}
	newest := slices.MaxFunc(waiting, func(a, b *v1.Desktop) int { return began(a).Compare(began(b)) })
	r := recall(view, began(newest))
	if len(r.failures) == 0 {
		return
	}
	spells := map[string]map[string]*spell{}
	for _, desktop := range waiting {
		if attempt := store.Attempt(desktop.GetIncarnation()); spells[attempt] == nil {
			spells[attempt] = r.spells(attempt)
		}
	}
	for _, h := range l.hosts {
		h.shunned = map[string]*spell{}
		for attempt, each := range spells {
			h.shunned[attempt] = each[h.Name()]
		}
	}
}

// record is what is known of lives that failed to get ready, and of those that did.
type record struct {
	// failures within the window, by host, and ever, as far as events are kept.
	failures, ever map[string][]failure
	// ready is when the newest life began that got ready, by what it tried and by host; proven by host alone.
	ready  map[string]map[string]time.Time
	proven map[string]time.Time
}

// failure is a life that failed to get ready.
type failure struct {
	at      time.Time
	attempt string
}

// recall reads the record at a time. Where few failed, as nearly always, it is empty.
func recall(view *store.View, now time.Time) record {
	r, since := record{ready: map[string]map[string]time.Time{}, proven: map[string]time.Time{}}, now.Add(-shunWindow)
	if !slices.ContainsFunc(slices.Collect(maps.Values(failuresSince(view, since))), func(f []failure) bool { return len(f) >= failuresToShun }) {
		return r
	}
	// A life that was told of before and is told of again, since it was held back meanwhile, failed when it was told of first.
	r.failures, r.ever = map[string][]failure{}, failuresSince(view, time.Time{})
	for host, failures := range r.ever {
		r.failures[host] = slices.DeleteFunc(slices.Clone(failures), func(f failure) bool { return f.at.Before(since) })
	}
	for _, desktop := range store.All[*v1.Desktop](view) {
		if _, ready := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY); ready {
			r.succeeded(store.Attempt(desktop.GetIncarnation()), desktop.GetIncarnation().GetHost(), began(desktop))
		}
	}
	return r
}

// succeeded notes that a life got ready.
func (r record) succeeded(attempt, host string, began time.Time) {
	if r.ready[attempt] == nil {
		r.ready[attempt] = map[string]time.Time{}
	}
	if began.After(r.ready[attempt][host]) {
		r.ready[attempt][host] = began
	}
	if began.After(r.proven[host]) {
		r.proven[host] = began
	}
}

// spells returns the spells of the hosts that are the last choice for lives that try something, by host; of those that are it
// for all when the attempt is empty.
func (r record) spells(attempt string) map[string]*spell {
	spells := map[string]*spell{}
	for host, failures := range r.failures {
		all, mine := len(r.counting(host, "", failures)), len(r.counting(host, attempt, failures))
		if mine < failuresToShun {
			continue
		}
		spells[host] = newestSpell(r.counting(host, attempt, r.ever[host]), mine)
		spells[host].alike = all < failuresToShun
	}
	return spells
}

// counting returns when lives failed on a host that count against it for lives that try something, oldest first: those after
// which no life began there that got ready.
func (r record) counting(host, attempt string, failures []failure) (times []time.Time) {
	blamed := map[string]bool{attempt: true}
	for _, f := range failures {
		if _, known := blamed[f.attempt]; !known {
			blamed[f.attempt] = r.blames(f.attempt, host)
		}
		if blamed[f.attempt] && f.at.After(r.proven[host]) {
			times = append(times, f.at)
		}
	}
	return times
}

// blames: what was tried is ready on another host, and did not fail elsewhere since, so the host is why it failed there.
func (r record) blames(attempt, host string) bool {
	var good, bad time.Time
	for other, at := range r.ready[attempt] {
		if other != host && at.After(good) {
			good = at
		}
	}
	for other, failures := range r.failures {
		for _, f := range failures {
			if other != host && f.attempt == attempt && f.at.After(bad) {
				bad = f.at
			}
		}
	}
	return !good.IsZero() && !bad.After(good)
}

// newestSpell finds where the spell began that the newest failures are part of.
func newestSpell(failures []time.Time, count int) *spell {
	newest := len(failures) - 1
	s := &spell{failures: count, from: failures[newest], until: failures[newest-failuresToShun+1].Add(shunWindow)}
	for i := newest; i >= failuresToShun-1; i-- {
		if failures[i-failuresToShun+1].Add(shunWindow).Before(s.from) {
			break
		}
		s.from = failures[i]
	}
	return s
}

func began(d *v1.Desktop) time.Time { return d.GetIncarnation().GetCreated().AsTime() }

// life is one life of a desktop.
type life struct{ desktop, generation string }

// failuresSince returns the lives that failed to get ready, by what events tell since a time, by host, oldest first. An event about
// a life that tells what it tried warns of that.
func failuresSince(view *store.View, since time.Time) map[string][]failure {
	lives := map[string]map[life]failure{}
	for _, event := range slices.Backward(view.EventsSince(since)) {
		labels := event.GetMeta().GetLabels()
		host, attempt := labels[store.LabelHost], labels[store.LabelAttempt]
		if !event.GetWarning() || attempt == "" || host == "" {
			continue
		}
		if lives[host] == nil {
			lives[host] = map[life]failure{}
		}
		lives[host][life{event.GetSubject(), labels[store.LabelGeneration]}] = failure{event.GetAt().AsTime(), attempt}
	}
	failures := map[string][]failure{}
	for host, each := range lives {
		failures[host] = slices.SortedFunc(maps.Values(each), func(a, b failure) int { return a.at.Compare(b.at) })
	}
	return failures
}

// text says why the host is the last choice.
func (s *spell) text() string {
	which := "desktops"
	if s.alike {
		which = "desktops of the same version, shape and readiness"
	}
	return fmt.Sprintf("is the last choice for %s until %s or until one gets ready there: %d failed to in the %d minutes before, and none that began after them did",
		which, clock(s.until), s.failures, int(shunWindow.Minutes()))
}

// clock writes a time for people everywhere: a host may serve several time zones.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// newSpells returns the events of hosts that became the last choice for all desktops. What is to be told follows from the view, so that each
// spell is told once, whoever leads.
func newSpells(view *store.View, now time.Time) []store.Op {
	var events []store.Op
	spells := recall(view, now).spells("")
	for _, name := range slices.Sorted(maps.Keys(spells)) {
		host, ok := store.Lookup[*v1.Host](view, name)
		told := slices.ContainsFunc(view.EventsAbout(store.RefOf(host)), func(e *v1.Event) bool {
			return e.GetReason() == ReasonShunned && !e.GetAt().AsTime().Before(spells[name].from)
		})
		if ok && !told {
			events = append(events, store.Create(store.NewEvent(now, host, ReasonShunned, "host "+name+" "+spells[name].text(), true)))
		}
	}
	return events
}
