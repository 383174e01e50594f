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
// so many lives failed to get ready there within the window, and none that began after them did.
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
}

// shun finds the hosts that are the last choice for desktops that wait. It looks back from when the newest of their lives
// began, so that a plan follows from its view alone.
func (l *ledger) shun(view *store.View, waiting []*v1.Desktop) {
	if len(waiting) == 0 {
		return
	}
	newest := slices.MaxFunc(waiting, func(a, b *v1.Desktop) int { return began(a).Compare(began(b)) })
	spells := spellsAt(view, began(newest))
	for _, h := range l.hosts {
		h.shunned = spells[h.Name()]
	}
}

// spellsAt returns the spells of the hosts that are the last choice for lives that begin at a time, by host.
func spellsAt(view *store.View, now time.Time) map[string]*spell {
	var ever map[string][]time.Time
	spells := map[string]*spell{}
	for host, failures := range failuresSince(view, now.Add(-shunWindow)) {
		proven := provenAt(view, host)
		count := len(after(failures, proven))
		if count < failuresToShun {
			continue
		}
		if ever == nil { // rarely: a spell may have begun long before
			ever = failuresSince(view, time.Time{})
		}
		spells[host] = newestSpell(after(ever[host], proven), count)
	}
	return spells
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

// provenAt is when the newest of the host's lives began that got ready.
func provenAt(view *store.View, host string) (proven time.Time) {
	for _, desktop := range view.DesktopsOnHost(host) {
		_, ready := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
		if at := began(desktop); ready && at.After(proven) {
			proven = at
		}
	}
	return proven
}

func after(times []time.Time, since time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(times), func(at time.Time) bool { return !at.After(since) })
}

func began(d *v1.Desktop) time.Time { return d.GetIncarnation().GetCreated().AsTime() }

// life is one life of a desktop.
type life struct{ desktop, generation string }

// failuresSince returns when lives failed to get ready since a time, by host, oldest first. An event about a life that tells what it
// tried warns of that.
func failuresSince(view *store.View, since time.Time) map[string][]time.Time {
	lives := map[string]map[life]time.Time{}
	for _, event := range slices.Backward(view.EventsSince(since)) {
		labels := event.GetMeta().GetLabels()
		host := labels[store.LabelHost]
		if !event.GetWarning() || labels[store.LabelAttempt] == "" || host == "" {
			continue
		}
		if lives[host] == nil {
			lives[host] = map[life]time.Time{}
		}
		lives[host][life{event.GetSubject(), labels[store.LabelGeneration]}] = event.GetAt().AsTime()
	}
	failures := map[string][]time.Time{}
	for host, each := range lives {
		failures[host] = slices.SortedFunc(maps.Values(each), time.Time.Compare)
	}
	return failures
}

// text says why the host is the last choice.
func (s *spell) text() string {
	return fmt.Sprintf("is the last choice for desktops until %s or until one gets ready there: %d failed to in the %d minutes before, and none that began after them did",
		clock(s.until), s.failures, int(shunWindow.Minutes()))
}

// clock writes a time for people everywhere: a host may serve several time zones.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// newSpells returns the events of hosts that became the last choice. What is to be told follows from the view, so that each
// spell is told once, whoever leads.
func newSpells(view *store.View, now time.Time) []store.Op {
	var events []store.Op
	spells := spellsAt(view, now)
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
