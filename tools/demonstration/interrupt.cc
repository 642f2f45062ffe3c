#include "tools/demonstration/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <initializer_list>

namespace kedge {
namespace {

volatile sig_atomic_t interrupts = 0;

extern "C" void OnInterrupt(int) {
  if (interrupts > 0) _exit(130);
  interrupts = 1;
}

}  // namespace

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
}

bool Interrupted() { return interrupts > 0; }

}  // namespace kedge
