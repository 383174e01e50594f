package warmup

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// maxBoots bounds what a host may say of itself.
const maxBoots = 4096

// host is a host in the making of the plan: its places for boots, and what is free of it over time.
type host struct {
	Host
	slots    []*slot // those that are used; there may be as many as boots
	boots    int
	promises []promise // in order of time
	memory   int64     // free before the first promise
	vcpus    int64
	// What all promises together leave of that, and whether one gives something back.
	endMemory, endVCPUs int64
	returns             bool
	chosen              int               // starts that were given to it
	begun               map[time.Time]int // starts that are under way, or over, by their deadline, which is to come
	due                 map[time.Time]int // those, and those that were given to it
}

// promise is a change of what is free.
type promise struct {
	at            time.Time
	memory, vcpus int64 // negative: taken
}

// slot is a place for one boot after another.
type slot struct {
	from time.Time // boots that run now, or are on their way, are over
	busy []span    // in order, apart from each other
	jobs []*job
}

type span struct{ from, to time.Time }

// promise notes that something is taken, or comes back.
func (h *host) promise(at time.Time, memory, vcpus int64) {
	i, _ := slices.BinarySearchFunc(h.promises, at, func(p promise, at time.Time) int { return p.at.Compare(at) })
	if i < len(h.promises) && h.promises[i].at.Equal(at) {
		h.promises[i].memory += memory
		h.promises[i].vcpus += vcpus
		if h.promises[i].memory == 0 && h.promises[i].vcpus == 0 {
			h.promises = slices.Delete(h.promises, i, i+1)
		}
		return
	}
	h.promises = slices.Insert(h.promises, i, promise{at, memory, vcpus})
}

// total notes that something is taken, or comes back, and what is free in the end.
func (h *host) total(at time.Time, memory, vcpus int64) {
	h.promise(at, memory, vcpus)
	h.endMemory += memory
	h.endVCPUs += vcpus
	h.returns = h.returns || memory > 0 || vcpus > 0
}

// roomFrom is the first time from which on so much is free for ever, as far as is known by now; false when there is none.
func (h *host) roomFrom(now time.Time, memory, vcpus int64) (time.Time, bool) {
	freeMemory, freeVCPUs := h.memory+h.endMemory, h.vcpus+h.endVCPUs
	if h.Closed != "" || freeMemory < memory || freeVCPUs < vcpus {
		return time.Time{}, false
	}
	if !h.returns { // then there never was less
		return now, true
	}
	for _, p := range slices.Backward(h.promises) {
		freeMemory -= p.memory
		freeVCPUs -= p.vcpus
		if freeMemory < memory || freeVCPUs < vcpus {
			return later(now, p.at), true
		}
	}
	return now, true
}

// margin is how much earlier than its own 99 % needs a start begins that is one of so many on the host for a deadline: those that follow each
// other in one place add up their delays, by the square root of their number. It comes once, after the last wave and not between them:
// so a place that is free does not wait, and a shorter row is as sure.
func (h *host) margin(starts int, deviation time.Duration) time.Duration {
	return time.Duration(float64(deviation) * math.Sqrt(float64(max(0, (starts-1)/h.boots))))
}

// begin notes a start that is under way, or over, of a row for a deadline that is to come.
func (h *host) begin(deadline time.Time) {
	h.begun[deadline.UTC()]++
	h.due[deadline.UTC()]++
}

// occupy notes a boot that runs already, or is about to, until then.
func (h *host) occupy(until time.Time) {
	if len(h.slots) < h.boots {
		h.slots = append(h.slots, &slot{from: until})
		return
	}
	first := slices.MinFunc(h.slots, func(a, b *slot) int { return a.from.Compare(b.from) })
	first.from = later(first.from, until)
}

// latest is the latest time from earliest to last at which a boot of that length has a place; nil when there is none.
func (h *host) latest(earliest, last time.Time, length time.Duration) (*slot, time.Time) {
	if len(h.slots) < h.boots && !last.Before(earliest) {
		return &slot{}, last
	}
	var best *slot
	var at time.Time
	for _, s := range h.slots {
		if t, ok := s.latest(earliest, last, length); ok && (best == nil || t.After(at)) {
			best, at = s, t
		}
	}
	return best, at
}

func (s *slot) latest(earliest, last time.Time, length time.Duration) (time.Time, bool) {
	earliest = later(earliest, s.from)
	for i := len(s.busy); i >= 0; i-- {
		from := earliest
		if i > 0 {
			from = later(from, s.busy[i-1].to)
		}
		if !last.Before(from) {
			return last, true
		}
		if i > 0 {
			last = sooner(last, s.busy[i-1].from.Add(-length))
		}
		if last.Before(earliest) {
			return time.Time{}, false
		}
	}
	return time.Time{}, false
}

// soonest is the first time from earliest on at which a boot of that length has a place.
func (h *host) soonest(earliest time.Time, length time.Duration) (*slot, time.Time) {
	var best *slot
	var at time.Time
	for _, s := range h.slots {
		if t := s.soonest(earliest, length); best == nil || t.Before(at) {
			best, at = s, t
		}
	}
	if len(h.slots) < h.boots && (best == nil || at.After(earliest)) {
		return &slot{}, earliest
	}
	return best, at
}

func (s *slot) soonest(earliest time.Time, length time.Duration) time.Time {
	at := later(earliest, s.from)
	for _, b := range s.busy {
		if !at.Add(length).After(b.from) {
			return at
		}
		at = later(at, b.to)
	}
	return at
}

// take gives a job its place.
func (h *host) take(s *slot, j *job) {
	j.host = h
	h.put(s, j)
	h.due[j.deadline.UTC()]++
	h.total(j.at, -j.pool.MemoryMiB, -j.pool.VCPUs)
	h.chosen++
}

// put enters a job in a slot, which may be a new one.
func (h *host) put(s *slot, j *job) {
	if !slices.Contains(h.slots, s) {
		h.slots = append(h.slots, s)
	}
	s.jobs = append(s.jobs, j)
	s.fill(span{j.at, j.at.Add(j.Mean)})
}

// fill enters a span, and joins it with those that it touches.
func (s *slot) fill(b span) {
	i, _ := slices.BinarySearchFunc(s.busy, b.from, func(o span, at time.Time) int { return o.from.Compare(at) })
	s.busy = slices.Insert(s.busy, i, b)
	if i+1 < len(s.busy) && !s.busy[i].to.Before(s.busy[i+1].from) {
		s.busy[i].to = later(s.busy[i].to, s.busy[i+1].to)
		s.busy = slices.Delete(s.busy, i+1, i+2)
	}
	if i > 0 && !s.busy[i-1].to.Before(s.busy[i].from) {
		s.busy[i-1].to = later(s.busy[i-1].to, s.busy[i].to)
		s.busy = slices.Delete(s.busy, i, i+1)
	}
}

// settle times the jobs of each slot anew when all are known: in the order of their deadlines as soon as can be, which makes the
// greatest delay as small as it can be, and then each as late as it can be without making one later.
func (h *host) settle(now time.Time) {
	for _, s := range h.slots {
		before := slices.Clone(s.jobs)
		times, late := s.times()
		slices.SortStableFunc(s.jobs, func(a, b *job) int {
			return cmp.Or(a.deadline.Compare(b.deadline), a.at.Compare(b.at))
		})
		h.hurry(s, now)
		h.delay(s)
		// Where memory comes back in between, who starts sooner may keep it from another.
		if _, after := s.times(); after > late {
			for i, j := range before {
				h.move(j, times[i])
			}
			s.jobs = before
		}
	}
}

// times are those of the slot's jobs, and by how much they miss their deadlines together.
func (s *slot) times() (at []time.Time, late time.Duration) {
	for _, j := range s.jobs {
		at = append(at, j.at)
		late += max(0, j.at.Sub(j.last()))
	}
	return at, late
}

// move gives a job another time.
func (h *host) move(j *job, at time.Time) {
	if at.Equal(j.at) {
		return
	}
	h.promise(j.at, j.pool.MemoryMiB, j.pool.VCPUs)
	j.at = at
	h.promise(j.at, -j.pool.MemoryMiB, -j.pool.VCPUs)
}

// hurry lets each job of a slot begin as soon as can be after the one before.
func (h *host) hurry(s *slot, now time.Time) {
	free := later(now, s.from)
	for _, j := range s.jobs {
		room := now
		if h.returns {
			room = h.roomWithout(now, j)
		}
		h.move(j, later(free, later(j.earliest, room)))
		free = j.at.Add(j.Mean)
	}
}

// roomWithout is the first time from which on there is room for a job that has its place already.
func (h *host) roomWithout(now time.Time, j *job) time.Time {
	h.total(j.at, j.pool.MemoryMiB, j.pool.VCPUs)
	defer h.total(j.at, -j.pool.MemoryMiB, -j.pool.VCPUs)
	room, ok := h.roomFrom(now, j.pool.MemoryMiB, j.pool.VCPUs)
	if !ok { // it has room at its own time at least
		return j.at
	}
	return room
}

// delay lets each job of a slot begin as late as it may, or as the one after it lets it.
func (h *host) delay(s *slot) {
	for i, j := range slices.Backward(s.jobs) {
		last := j.best()
		if i+1 < len(s.jobs) {
			last = sooner(last, s.jobs[i+1].at.Add(-j.Mean))
		}
		if last.After(j.at) {
			h.move(j, last)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
