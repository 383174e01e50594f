package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// run starts the loop in the bubble and ends it with the test.
func run(t *testing.T, loop *Loop) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// diary notes which key was worked on when.
type diary struct {
	mu    sync.Mutex
	lines []string
	start time.Time
}

func (d *diary) note(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%s@%v", key, time.Since(d.start).Round(time.Second)))
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, " ")
}

func TestAddsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &diary{start: time.Now()}
		loop := New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			seen.note(key)
			return 0, nil
		})
		loop.Add("b", "a", "b")
		loop.Add("a")
		run(t, loop)
		synctest.Wait()
		loop.Add("a")
		synctest.Wait()
		if got, want := seen.String(), "b@0s a@0s a@0s"; got != want {
			t.Errorf("worked on %s, want %s", got, want)
		}
	})
}

func TestKeyInWorkIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &diary{start: time.Now()}
		var loop *Loop
		loop = New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			seen.note(key)
			time.Sleep(10 * time.Second)
			return 0, nil
		})
		run(t, loop)
		loop.Add("a")
		synctest.Wait()
		for range 5 { // five changes while it works are one more round, behind b that came first
			loop.Add("b", "a")
		}
		time.Sleep(time.Minute)
		if got, want := seen.String(), "a@0s b@10s a@20s"; got != want {
			t.Errorf("worked on %s, want %s", got, want)
		}
	})
}

func TestAgainAndEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &diary{start: time.Now()}
		rounds := 0
		loop := New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			seen.note(key)
			if rounds++; rounds < 4 {
				return 30 * time.Second, nil
			}
			return 0, nil
		})
		run(t, loop)
		loop.Add("a")
		time.Sleep(40 * time.Second) // 0, 30
		loop.Add("a")                // 40 replaces 60, then 70, and then no more
		time.Sleep(time.Hour)
		if got, want := seen.String(), "a@0s a@30s a@40s a@1m10s"; got != want {
			t.Errorf("worked on %s, want %s", got, want)
		}
	})
}

// What waits for a time of day is looked at again when the clock was set, which no timer tells; what failed is not.
func TestClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &diary{start: time.Now()}
		loop := New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			seen.note(key)
			return 5 * time.Hour, nil
		})
		var step atomic.Int64
		loop.clock = func() time.Time { return time.Now().Round(0).Add(time.Duration(step.Load())) }
		run(t, loop)
		loop.Add("a")
		time.Sleep(90*time.Minute + 30*time.Second) // not at the moment at which the loop looks
		step.Store(int64(2 * time.Hour))
		time.Sleep(10 * time.Minute)
		step.Store(0)
		time.Sleep(6 * time.Hour)
		if got, want := seen.String(), "a@0s a@1h31m0s a@1h41m0s a@6h41m0s"; got != want {
			t.Errorf("worked on %s, want %s", got, want)
		}
	})
}

func TestFailuresBackOffAndOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		other := 0
		start := time.Now()
		broken := true
		loop := New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			if key == "other" {
				other++
				return time.Second, nil
			}
			times = append(times, time.Since(start))
			if broken {
				return 0, errors.New("broken")
			}
			return 0, nil
		})
		run(t, loop)
		loop.Add("broken", "other")
		time.Sleep(5*time.Minute + time.Millisecond)
		synctest.Wait()
		if other != 301 {
			t.Errorf("the healthy key was seen %d times in 5 minutes, want 301", other)
		}
		last := len(times) - 1
		if last < 12 || last > 22 {
			t.Errorf("the broken key was tried %d times in 5 minutes", last+1)
		}
		if gap := times[1] - times[0]; gap > 120*time.Millisecond {
			t.Errorf("first retry after %v", gap)
		}
		if gap := times[last] - times[last-1]; gap < 24*time.Second || gap > 36*time.Second {
			t.Errorf("late retry after %v, want about 30 s", gap)
		}
		broken = false
		loop.Add("broken") // a change is a reason to try at once
		synctest.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := len(times) - 1 - last; got != 1 {
			t.Errorf("tried %d times after it was mended, want once", got)
		}
	})
}

func TestFailureWhileAddedDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 0
		var loop *Loop
		loop = New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			rounds++
			loop.Add(key)
			return 0, errors.New("broken")
		})
		run(t, loop)
		loop.Add("a")
		time.Sleep(time.Minute)
		synctest.Wait()
		if rounds > 15 {
			t.Errorf("%d rounds in a minute", rounds)
		}
	})
}

func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 1_000_000).Draw(t, "n")
		chance := rapid.Float64Range(0, 0.999).Draw(t, "chance")
		got := backoff(n, chance)
		if got < firstBackoff*4/5 || got > longestBackoff*6/5 {
			t.Fatalf("backoff(%d, %v) = %v", n, chance, got)
		}
		if n > 1 && backoff(n-1, chance) > got {
			t.Fatalf("backoff(%d, %v) = %v is shorter than the one before", n, chance, got)
		}
	})
}

// Every key added from many goroutines is worked on after its last Add.
func TestNothingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		wanted, seen := map[string]int{}, map[string]int{}
		loop := New("test", zerolog.Nop(), func(_ context.Context, key string) (time.Duration, error) {
			mu.Lock()
			version := wanted[key]
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			seen[key] = version
			mu.Unlock()
			return 0, nil
		})
		run(t, loop)
		var adders sync.WaitGroup
		for a := range 8 {
			adders.Go(func() {
				for i := range 100 {
					key := fmt.Sprint((a + i) % 5)
					mu.Lock()
					wanted[key]++
					mu.Unlock()
					loop.Add(key)
					time.Sleep(time.Duration(a*i%7) * time.Millisecond)
				}
			})
		}
		adders.Wait()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(wanted)) {
			if seen[key] != wanted[key] {
				t.Errorf("key %s: last seen at version %d, want %d", key, seen[key], wanted[key])
			}
		}
	})
}
