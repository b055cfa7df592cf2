// Processor time of a thread: whether it computes, seen from another one.
#pragma once

#include <pthread.h>
#include <time.h>

#ifdef __APPLE__
#include <mach/mach.h>
#endif

#include <cstdint>

namespace parley {

// Nanoseconds of the processor that the thread has used; -1 if the system does not tell, because the thread has ended.
inline int64_t thread_time_ns(pthread_t thread) {
#ifdef __APPLE__
  thread_basic_info_data_t info;
  mach_msg_type_number_t count = THREAD_BASIC_INFO_COUNT;
  if (thread_info(pthread_mach_thread_np(thread), THREAD_BASIC_INFO, reinterpret_cast<thread_info_t>(&info), &count) != KERN_SUCCESS) return -1;
  const auto ns = [](time_value_t time) { return static_cast<int64_t>(time.seconds) * 1000000000 + static_cast<int64_t>(time.microseconds) * 1000; };
  return ns(info.user_time) + ns(info.system_time);
#else
  clockid_t clock;
  timespec time;
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return -1;
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
#endif
}

}  // namespace parley
