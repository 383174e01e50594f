// Package sim runs the whole system in virtual time: the real loops on the store in memory, hundreds of real host agents
// on hosts in memory over real gRPC, users, and a seeded sequence of faults. A checker that knows nothing of how the
// product decides holds what happened against design.md's invariants.
//
// Here: tests only. Not here: anything that is shipped, real QEMU (deploy/e2e). Run one seed for longer with
//
//	go test ./deploy/sim -run TestSimulation -seed 7 -hours 24 -hosts 300
//
// and more days of opening and closing offices with
//
//	go test ./deploy/sim -run TestDays -timeout 0 -seed 7 -days 84 -dayhosts 60 -daypools 20
//
// That takes a second or two of a CPU for each host and day, half of it for the thirteen desktops on each: over two hours at this size,
// and an hour with -dayseats 6. GOGC=400 makes it quicker, and -v says how each day went. Three hosts with -dayseats 33 have as many
// desktops each as sixty do that serve a town of 2,000.
//
// A seed fixes what is done to the system and when. How goroutines take turns is the Go scheduler's choice, so a seed
// that failed once may need a few runs to fail again.
package sim
