package dispatch

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// A COMPLETE message is one message, and listeners send 4 MiB at most: what does not fit follows at once as changes.
	// Until then the agent takes it for orphans, which it keeps running.
	maxComplete      = 8192
	maxCompleteBytes = 3 << 20
	// Limits of one message of changes.
	maxChanges      = 1000
	maxChangesBytes = 3 << 20
)

// news is what changed for a host since its session was last looked at.
type news struct {
	desktops map[string]struct{}
	// wanted: the Host object changed, so that what is wanted of the host itself may have.
	wanted bool
	asks   []*v1.Ask
	// erase are the lives that this host shall end although their desktops have later ones.
	erase map[life]*v1.Assignment
}

// outbox knows what one session was told, and makes the next messages out of what should be.
type outbox struct {
	host     string
	epoch    uint64
	sequence uint64
	sent     map[string]*v1.Assignment
	erasing  map[life]*v1.Assignment
	images   *v1.WantedImages
	// reserved is the memory that the host was told to keep for itself.
	reserved uint64
}

func newOutbox(host string, epoch uint64) *outbox {
	return &outbox{host: host, epoch: epoch, sent: map[string]*v1.Assignment{}, erasing: map[life]*v1.Assignment{}}
}

// messages returns what to send now, in order: nothing when nothing that the agent needs has changed.
func (o *outbox) messages(view *store.View, n news) []*v1.Assignments {
	var out []*v1.Assignments
	if o.sequence == 0 {
		out = append(out, o.complete(view, n))
		n.wanted, n.asks = false, nil
		for _, d := range view.DesktopsOnHost(o.host) {
			n.desktops[d.GetMeta().GetName()] = struct{}{} // those that found no room
		}
	}
	return append(out, o.changes(view, n)...)
}

func (o *outbox) next(complete bool) *v1.Assignments {
	o.sequence++
	return &v1.Assignments{Complete: complete, AppliesTo: o.sequence - 1, ResultsIn: o.sequence, ClusterEpoch: o.epoch, ReservedMemoryMib: o.reserved}
}

func (o *outbox) complete(view *store.View, n news) *v1.Assignments {
	o.reserved = reserved(view, o.host)
	m := o.next(true)
	o.images = wanted(view, o.host)
	m.WantedImages, m.Asks = o.images, n.asks
	size := 0
	for _, d := range view.DesktopsOnHost(o.host) {
		a := assignment(d)
		if size += proto.Size(a); len(m.Set) == maxComplete || size > maxCompleteBytes {
			break
		}
		m.Set = append(m.Set, a)
		o.sent[a.GetDesktop()] = a
	}
	return m
}

func (o *outbox) changes(view *store.View, n news) []*v1.Assignments {
	var out []*v1.Assignments
	var m *v1.Assignments
	room := 0
	message := func(size int) *v1.Assignments {
		if m == nil || len(m.Set)+len(m.Drop) >= maxChanges || room < size {
			m, room = o.next(false), maxChangesBytes
			out = append(out, m)
		}
		room -= size
		return m
	}
	if keep := reserved(view, o.host); n.wanted && keep != o.reserved {
		o.reserved = keep
		message(0)
	}
	if images := wanted(view, o.host); n.wanted && !proto.Equal(images, o.images) {
		o.images = images
		message(0).WantedImages = images
	}
	for _, name := range sortedKeys(n.desktops) {
		set, drop := o.change(view, n, name)
		size := 0
		for _, a := range set {
			size += proto.Size(a)
		}
		if drop || len(set) > 0 {
			m := message(size)
			m.Set = append(m.Set, set...)
		}
		if drop {
			m.Drop = append(m.Drop, name)
		}
	}
	if len(n.asks) > 0 {
		message(0).Asks = n.asks
	}
	return out
}

// change says what to tell of one desktop. A drop lets the agent forget the life of it that has ended.
func (o *outbox) change(view *store.View, n news, name string) (set []*v1.Assignment, drop bool) {
	var want *v1.Assignment
	if d, ok := store.Lookup[*v1.Desktop](view, name); ok && d.GetIncarnation().GetHost() == o.host {
		want = assignment(d)
	}
	had := o.sent[name]
	if had != nil && (want == nil || lifeOfAssignment(want) != lifeOfAssignment(had)) {
		delete(o.sent, name)
		drop = true
	}
	if want != nil && !proto.Equal(want, had) {
		o.sent[name] = want
		set = append(set, want)
	}
	for l := range o.erasing {
		if l.desktop == name && n.erase[l] == nil {
			delete(o.erasing, l)
			drop = true
		}
	}
	for l, a := range n.erase {
		if l.desktop == name && o.erasing[l] == nil {
			o.erasing[l] = a
			set = append(set, a)
		}
	}
	return set, drop
}

func wanted(view *store.View, host string) *v1.WantedImages {
	h, _ := store.Lookup[*v1.Host](view, host)
	return &v1.WantedImages{Images: h.GetWantedImages()}
}

func reserved(view *store.View, host string) uint64 {
	h, _ := store.Lookup[*v1.Host](view, host)
	return h.GetSpec().GetReservedMemoryMib()
}

func sortedKeys(set map[string]struct{}) []string {
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
