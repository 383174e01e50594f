package warmup

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	// newest is how many samples of one kind an estimate looks at: more of them are of days gone by, unless they are of the last ones.
	newest = 512
	// enough is how many samples make an estimate of their own; with fewer, those of the next wider kind are looked at first.
	enough = 5
	// plain is how many samples show the 0.99 quantile themselves.
	plain = 100
	// proven is how many days show how much one differs from another.
	proven = 14
	// daily is the part by which starts of another day may take longer than those of the only one that is known: what made all of them
	// quick, or slow, was the host's on that day.
	daily = 0.25
	// sitting is how far apart samples of one day are at most. Days are not counted by midnights, since mornings in Tokyo are on both sides of UTC's.
	sitting = 16 * time.Hour
	// outlier is how many medians a sample counts at most: one that hung says nothing of the others.
	outlier = 4
	// What an estimate is multiplied with that was learned from another version of the image, or another image.
	otherVersion, otherImage = 1.25, 1.5
	// defaultReadiness is the proto's default of Readiness.deadline.
	defaultReadiness = 5 * time.Minute
	// mostBytes that a start is believed to read.
	mostBytes = 1 << 50
	// shortest start that is believed.
	shortest = 100 * time.Millisecond
)

// HostClass names hosts whose boots can be compared.
func HostClass(c *v1.HostCapacity) string {
	how := "no virtualisation"
	switch {
	case c.GetKvm():
		how = "KVM"
	case c.GetEmulation():
		how = "emulated"
	}
	model := c.GetCpuModel()
	if model == "" {
		model = "CPU"
	}
	if runes := []rune(model); len(runes) > 128 {
		model = string(runes[:128])
	}
	return fmt.Sprintf("%s ×%d, %d GiB, %s", model, c.GetCpus(), (c.GetMemoryMib()+512)/1024, how)
}

// Model is what is known about how long starts take. It does not change.
type Model struct {
	digests map[[2]string][]sample // by digest and class
	images  map[[2]string][]sample // by image and class
	classes map[string][]sample
}

// sample is a start.
type sample struct {
	took   float64 // seconds
	atOnce int
	bytes  uint64
	ready  time.Time
}

// Learn makes a model of what pools remember. imageOf names the image that a version's digest belongs to; "" when it is not known.
func Learn(histories []*v1.History, imageOf func(digest string) string) *Model {
	m := &Model{digests: map[[2]string][]sample{}, images: map[[2]string][]sample{}, classes: map[string][]sample{}}
	for _, history := range histories {
		for _, boot := range history.GetBoots() {
			took := boot.GetTook().AsDuration()
			if boot.GetTook() == nil || took < shortest {
				continue
			}
			s := sample{took.Seconds(), max(1, int(boot.GetAtOnce())), boot.GetReadBytes(), boot.GetReady().AsTime()}
			class := boot.GetHostClass()
			digest := [2]string{boot.GetDigest(), class}
			m.digests[digest] = append(m.digests[digest], s)
			m.classes[class] = append(m.classes[class], s)
			if image := imageOf(boot.GetDigest()); image != "" {
				m.images[[2]string{image, class}] = append(m.images[[2]string{image, class}], s)
			}
		}
	}
	for _, samples := range m.digests {
		byTime(samples)
	}
	for _, samples := range m.images {
		byTime(samples)
	}
	for _, samples := range m.classes {
		byTime(samples)
	}
	return m
}

func byTime(samples []sample) {
	slices.SortFunc(samples, func(a, b sample) int {
		return cmp.Or(a.ready.Compare(b.ready), cmp.Compare(a.took, b.took), cmp.Compare(a.atOnce, b.atOnce), cmp.Compare(a.bytes, b.bytes))
	})
}

// Boot is a start that is to be estimated.
type Boot struct {
	Image, Digest, Class string
	// AtOnce is how many boots run on the host at once.
	AtOnce int
	// Readiness is the time after which it has failed; 0 means 5 minutes.
	Readiness time.Duration
}

// Estimate is how long a start takes.
type Estimate struct {
	// Mean, and the time within which 99 of 100 are ready; never less than the mean.
	Mean, Quantile time.Duration
	// Deviation is the standard deviation; 0 when nothing is known.
	Deviation time.Duration
	// Samples that it was learned from; 0 when it is the deadline for readiness.
	Samples int
	// From says what was learned from, for people.
	From string
	// ReadBytes that a start reads of its disk, on the average; 0 when not known.
	ReadBytes uint64
}

// Estimate says how long a start takes. It is learned from starts on hosts of the same class: of the same version; when there are
// fewer than 5, of any version of the image, and a quarter is added; else of any image, and half is added. When nothing is
// known, every start takes as long as it may.
//
// The mean is that of the samples and one standard error more. The quantile is, from 100 samples on, the order statistic that
// 99 of 100 stay below; with n less than that it is the longest of them, times 1 + 1/√n − 1/10: 1.9 times with one sample, 1.4 with four, 1.1 with 25.
// However many there are, starts of one day have that day's load and disks in common, and a plan of many waves would miss by it in each
// of them: all of it is 1.23 times as long with samples of one day, 1.11 with two, 1.02 with seven, and once from 14 on.
//
// One sample counts at most 4 medians, and everything at most the deadline for readiness. Samples count that began among about as many boots
// as AtOnce: more than half and not more. When fewer than 5 did, those among fewer boots count too, and then all of them; when none began among so
// many, the times grow in proportion: what limits boots is taken to be exhausted.
func (m *Model) Estimate(b Boot) Estimate {
	limit := b.Readiness
	if limit <= 0 {
		limit = defaultReadiness
	}
	samples, factor, from := m.find(b)
	if len(samples) == 0 {
		return Estimate{Mean: limit, Quantile: limit, From: "nothing yet; the deadline for readiness"}
	}
	samples, crowd := comparable(samples, b.AtOnce)
	samples, days := recent(samples)
	factor *= crowd * (1 + daily*max(0, 1/float64(days)-1.0/proven))
	took, bytes := times(samples)
	mean, deviation := spread(took)
	span := func(seconds float64) time.Duration {
		return time.Duration(min(limit.Seconds(), seconds*factor) * float64(time.Second))
	}
	return Estimate{
		Mean: max(shortest, span(mean)), Quantile: max(shortest, span(max(mean, quantile(took)))), Deviation: span(deviation),
		Samples: len(samples), From: from, ReadBytes: bytes,
	}
}

// find returns the samples nearest to a boot.
func (m *Model) find(b Boot) (samples []sample, factor float64, from string) {
	if m == nil {
		return nil, 1, ""
	}
	kinds := []struct {
		samples []sample
		factor  float64
		from    string
	}{
		{m.digests[[2]string{b.Digest, b.Class}], 1, "starts of this version"},
		{m.images[[2]string{b.Image, b.Class}], otherVersion, "starts of all versions of the image"},
		{m.classes[b.Class], otherImage, "starts of all images"},
	}
	for _, least := range []int{enough, 1} {
		for _, kind := range kinds {
			if len(kind.samples) >= least {
				return kind.samples, kind.factor, kind.from
			}
		}
	}
	return nil, 1, ""
}

// comparable leaves out what began among other numbers of boots than will be, and says by how much the rest has to grow.
func comparable(samples []sample, atOnce int) ([]sample, float64) {
	atOnce = max(1, atOnce)
	var like, fewer []sample
	most := 0
	for _, s := range samples {
		if s.atOnce <= atOnce {
			fewer = append(fewer, s)
			if s.atOnce > atOnce/2 {
				like = append(like, s)
			}
		}
		most = max(most, s.atOnce)
	}
	switch {
	case len(like) >= enough:
		samples = like
	case len(fewer) >= enough:
		samples = fewer
	}
	if most < atOnce {
		return samples, float64(atOnce) / float64(most)
	}
	return samples, 1
}

// recent takes the newest samples, and says of how many days they are: as many as make an estimate, and all of the days that show how much one
// differs from another. A large site starts more desktops in one morning than it takes for the first alone.
func recent(samples []sample) (some []sample, days int) {
	all := sittings(samples)
	first := len(samples)
	for first > 0 && (len(samples)-first < newest || days < proven) {
		days++
		first -= len(all[len(all)-days])
	}
	return samples[first:], days
}

// sittings puts samples, which are in the order of time, together by days.
func sittings(samples []sample) (days [][]sample) {
	begun := 0
	for i := range samples {
		if samples[i].ready.Sub(samples[begun].ready) >= sitting {
			days = append(days, samples[begun:i])
			begun = i
		}
	}
	return append(days, samples[begun:])
}

// times are the seconds of samples, sorted and without outliers, and the mean of the bytes that were read.
func times(samples []sample) (took []float64, bytes uint64) {
	var sum float64
	known := 0
	for _, s := range samples {
		took = append(took, s.took)
		if s.bytes > 0 {
			sum += float64(s.bytes)
			known++
		}
	}
	slices.Sort(took)
	median := took[len(took)/2]
	if len(took)%2 == 0 {
		median = took[len(took)/2-1]
	}
	for i := range took {
		took[i] = min(max(took[i], median/outlier), median*outlier)
	}
	if known > 0 {
		bytes = uint64(min(sum/float64(known), mostBytes))
	}
	return took, bytes
}

// spread is the mean with its standard error added, and the standard deviation, for which few samples count as at least a quarter of the mean.
func spread(took []float64) (mean, deviation float64) {
	var sum, squares float64
	for _, t := range took {
		sum += t
	}
	n := float64(len(took))
	mean = sum / n
	for _, t := range took {
		squares += (t - mean) * (t - mean)
	}
	deviation = math.Sqrt(squares / max(1, n-1))
	if len(took) < enough {
		deviation = max(deviation, mean/4)
	}
	return mean + deviation/math.Sqrt(n), deviation
}

func quantile(took []float64) float64 {
	n := len(took)
	if n >= plain {
		return took[min(n-1, int(math.Ceil(0.99*float64(n+1)))-1)]
	}
	return took[n-1] * (1 + 1/math.Sqrt(float64(n)) - 1/math.Sqrt(plain))
}
