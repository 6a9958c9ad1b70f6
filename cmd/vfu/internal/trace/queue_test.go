package trace

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestQueueKeepsOrder(t *testing.T) {
	var got []int
	q := newQueue(func(events []Event) {
		for _, e := range events {
			got = append(got, e.Session)
		}
	})
	var want []int
	for i := range 10_000 {
		q.put(Event{Session: i})
		want = append(want, i)
	}
	q.close()
	if !slices.Equal(got, want) {
		t.Errorf("%d events of %d, or in another order", len(got), len(want))
	}
}

// Who shows sleeps while nothing comes, and shows soon what comes then.
func TestQueueWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		shown := 0
		q := newQueue(func(events []Event) {
			mu.Lock()
			defer mu.Unlock()
			shown += len(events)
		})
		for n := 1; n <= 3; n++ {
			time.Sleep(time.Hour)
			synctest.Wait()
			q.mu.Lock()
			if !q.asleep {
				t.Error("an hour without events, and nobody sleeps")
			}
			q.mu.Unlock()
			q.put(Event{})
			time.Sleep(queuePeriod)
			synctest.Wait()
			mu.Lock()
			if shown != n {
				t.Errorf("%d events were shown, want %d", shown, n)
			}
			mu.Unlock()
		}
		q.close()
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := newQueue(func([]Event) { <-release })
		q.put(Event{})
		time.Sleep(time.Minute) // it is being shown
		put := 0
		go func() {
			for range 2 * queueBytes / relayBuffer {
				q.put(Event{Bytes: make([]byte, relayBuffer)})
				put++
			}
		}()
		synctest.Wait()
		if want := queueBytes/(relayBuffer+eventBytes) + 1; put != want {
			t.Errorf("%d pieces wait, want %d", put, want)
		}
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := 2 * queueBytes / relayBuffer; put != want {
			t.Errorf("%d pieces came in the end, want %d", put, want)
		}
		q.close()
	})
}
