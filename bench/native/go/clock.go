package main

import (
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
	"unsafe"
)

// threadCPU is the CPU time of this thread, so that the time slices of other processes do not count.
// The goroutine must be locked to its thread.
func threadCPU() time.Duration {
	const clockThreadCPUTimeID = 3
	var now syscall.Timespec
	_, _, failure := syscall.RawSyscall(
		syscall.SYS_CLOCK_GETTIME, clockThreadCPUTimeID, uintptr(unsafe.Pointer(&now)), 0)
	if failure != 0 {
		panic(failure)
	}
	return time.Duration(now.Nano())
}

// processCPU is the CPU time of all threads, those of the collector included.
func processCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// collector is what Go's collector did between two moments.
type collector struct {
	Collections    int64         `json:"collections"`
	PausesNS       time.Duration `json:"pauses_ns"`
	LongestPauseNS time.Duration `json:"longest_pause_ns"`
	AssistNS       time.Duration `json:"assist_ns"` // its work that writes had to do
	CPUNS          time.Duration `json:"collector_cpu_ns"`
}

// collectorWatch remembers the first moment. The collector sums its CPU time up when a collection ends.
type collectorWatch struct {
	stats       debug.GCStats
	assist, cpu time.Duration
}

func watchCollector() (watch collectorWatch) {
	debug.ReadGCStats(&watch.stats)
	samples := []metrics.Sample{
		{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
	}
	metrics.Read(samples)
	watch.assist = time.Duration(samples[0].Value.Float64() * float64(time.Second))
	watch.cpu = time.Duration(samples[1].Value.Float64() * float64(time.Second))
	return watch
}

func (before collectorWatch) done() collector {
	after := watchCollector()
	did := collector{
		Collections: after.stats.NumGC - before.stats.NumGC,
		PausesNS:    after.stats.PauseTotal - before.stats.PauseTotal,
		AssistNS:    after.assist - before.assist,
		CPUNS:       after.cpu - before.cpu,
	}
	// The latest comes first, and there are only so many.
	for _, pause := range after.stats.Pause[:min(int(did.Collections), len(after.stats.Pause))] {
		did.LongestPauseNS = max(did.LongestPauseNS, pause)
	}
	return did
}
