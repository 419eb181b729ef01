// A second device for machines that have none: two indices, memory and kernels of the cpu.
//
// It is registered under PrivateUse1, the dispatch key torch keeps for devices of other makers,
// and is a device of its own for all torch can tell: its tensors do not mix with the cpu's or
// with those of the other index, each index has its own random state, and autograd, autocast,
// copies and saves go the ways they go for any such device.
//
// There is one kernel for nearly all operators, `run_on_cpu`: it lends the cpu's kernel tensors
// that lie on the same memory, and takes back what the kernel returns. What only the device can
// answer (allocate, copy, resize, read one value) stands below it.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace {

constexpr c10::DeviceType TWIN = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex COUNT = 2;

thread_local c10::DeviceIndex current = 0;

c10::Device checked(c10::Device device) {
  if (!device.has_index()) {
    return {TWIN, current};
  }
  TORCH_CHECK(
      device.index() >= 0 && device.index() < COUNT,
      "there is no ", device, ": the test device has ", static_cast<int>(COUNT), " indices");
  return device;
}

// How often the host waited for values of each index: copies to another device, reads of a value.
std::array<std::atomic<int64_t>, COUNT> transfers{};

void count_transfer(c10::Device from) {
  ++transfers[static_cast<size_t>(from.index())];
}

// -- memory ----------------------------------------------------------------------------------

void release_memory(void* memory) {
  c10::free_cpu(memory);
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(TWIN, current);
    if (bytes == 0) {
      return {nullptr, device};
    }
    void* memory = c10::alloc_cpu(bytes);
    return {memory, memory, &release_memory, device};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release_memory;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

Allocator allocator;
REGISTER_ALLOCATOR(TWIN, &allocator)

// -- random states ---------------------------------------------------------------------------

// The cpu's algorithm, on a device of its own.
struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(c10::Device device) {
    device_ = device;
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }

 private:
  Generator* clone_impl() const override {
    auto* copy = new Generator(device());
    copy->set_state(*get_state());
    return copy;
  }
};

const at::Generator& default_generator(c10::DeviceIndex index) {
  static const std::array<at::Generator, COUNT> generators = {
      at::make_generator<Generator>(c10::Device(TWIN, 0)),
      at::make_generator<Generator>(c10::Device(TWIN, 1))};
  return generators.at(static_cast<size_t>(checked({TWIN, index}).index()));
}

// The cpu's kernels draw from the cpu's generator: while one of them runs for this device, it
// holds the state of the device's.
class LentState {
 public:
  explicit LentState(at::Generator generator)
      : generator_(std::move(generator)), kept_(at::detail::getDefaultCPUGenerator().get_state()) {
    cpu().set_state(generator_.get_state());
  }
  LentState(const LentState&) = delete;
  LentState& operator=(const LentState&) = delete;
  ~LentState() {
    generator_.set_state(cpu().get_state());
    cpu().set_state(kept_);
  }

 private:
  static at::Generator cpu() {
    return at::detail::getDefaultCPUGenerator();
  }
  at::Generator generator_;
  at::Tensor kept_;
};

// -- the current index -----------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = TWIN;
  Guard() = default;
  explicit Guard(c10::DeviceType /*type*/) {}

  c10::DeviceType type() const override {
    return TWIN;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {TWIN, std::exchange(current, checked(device).index())};
  }
  c10::Device getDevice() const override {
    return {TWIN, current};
  }
  void setDevice(c10::Device device) const override {
    current = checked(device).index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return COUNT;
  }
  // Every operation is done when its call returns: one stream, and events that have happened.
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return stream;
  }
  void record(void** /*event*/, const c10::Stream& /*stream*/, const c10::DeviceIndex /*index*/,
              const c10::EventFlag /*flag*/) const override {}
  void block(void* /*event*/, const c10::Stream& /*stream*/) const override {}
  bool queryEvent(void* /*event*/) const override {
    return true;
  }
  bool queryStream(const c10::Stream& /*stream*/) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream& /*stream*/) const override {}
  void synchronizeEvent(void* /*event*/) const override {}
  void synchronizeDevice(const c10::DeviceIndex /*index*/) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex /*index*/) const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const override {
    return COUNT;
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return current;
  }
  void setCurrentDevice(c10::DeviceIndex index) const override {
    current = checked({TWIN, index}).index();
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return std::exchange(current, checked({TWIN, index}).index());
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current : exchangeDevice(index);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return default_generator(index);
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<Generator>(checked({TWIN, index}));
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    const c10::DeviceGuard guard(storage.device());
    at::native::resize_bytes_cpu(storage.unsafeGetStorageImpl(), bytes);
  }
};

// -- operators -------------------------------------------------------------------------------

void release_storage(void* storage) {
  delete static_cast<c10::Storage*>(storage);
}

// The same memory as memory of another device; it keeps the storage alive.
c10::DataPtr shared_memory(const c10::Storage& storage, c10::Device device) {
  return {storage.mutable_data(), new c10::Storage(storage), &release_storage, device};
}

c10::Storage on_device(const c10::Storage& storage, c10::Device device, c10::Allocator* from) {
  return {c10::Storage::use_byte_size_t(), storage.nbytes(), shared_memory(storage, device), from,
          /*resizable=*/true};
}

void set_geometry(const at::Tensor& tensor, const at::Tensor& as) {
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      as.sizes(), as.strides(), as.storage_offset());
  tensor._set_conj(as.is_conj());
  tensor._set_neg(as.is_neg());
}

// One operator's tensors while the cpu's kernel has them.
class Loan {
 public:
  void allow_on(c10::Device device) {
    if (!device_) {
      device_ = device;
    }
  }

  at::Tensor lend(const at::Tensor& tensor, const char* op, bool may_be_on_cpu) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (tensor.is_cpu()) {
      found_on_cpu_ = found_on_cpu_ || !(may_be_on_cpu || tensor.dim() == 0);
    } else if (tensor.device().type() == TWIN) {
      allow_on(tensor.device());
    }
    TORCH_CHECK(
        tensor.layout() == at::kStrided && (tensor.is_cpu() || tensor.device() == *device_) &&
            !(found_on_cpu_ && device_),
        "Expected all tensors to be on the same device, but ", op, " got tensors on ",
        found_on_cpu_ ? c10::Device(at::kCPU) : *device_, " and ",
        found_on_cpu_ ? *device_ : tensor.device());
    if (tensor.is_cpu()) {
      return tensor;
    }
    auto lent = at::detail::make_tensor<c10::TensorImpl>(
        on_device(tensor.storage(), at::kCPU, c10::GetAllocator(at::kCPU)),
        c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    set_geometry(lent, tensor);
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
      lent.unsafeGetTensorImpl()->set_wrapped_number(true);
    }
    lent_.emplace_back(tensor, lent);
    return lent;
  }

  // A kernel may have given a tensor that it writes another size, and then other memory.
  void take_back_changes() const {
    for (const auto& [ours, lent] : lent_) {
      const c10::Storage& before = ours.storage();
      const c10::Storage& after = lent.storage();
      if (before.nbytes() != after.nbytes() || before.data() != after.data()) {
        before.set_data_ptr_noswap(shared_memory(after, ours.device()));
        before.set_nbytes(after.nbytes());
      }
      if (ours.sizes() != lent.sizes() || ours.strides() != lent.strides() ||
          ours.storage_offset() != lent.storage_offset()) {
        set_geometry(ours, lent);
      }
    }
  }

  at::Tensor take(const at::Tensor& result) const {
    if (!result.defined() || result.device() == device()) {
      return result;
    }
    for (const auto& [ours, lent] : lent_) {
      if (result.is_same(lent)) {
        return ours;  // written in place
      }
      if (result.is_alias_of(lent)) {  // a view: it has to lie on our storage
        auto view = at::detail::make_tensor<c10::TensorImpl>(
            c10::TensorImpl::VIEW, c10::Storage(ours.storage()), ours.key_set(), result.dtype());
        set_geometry(view, result);
        return view;
      }
    }
    auto taken = at::detail::make_tensor<c10::TensorImpl>(
        on_device(result.storage(), device(), &allocator),
        c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), result.dtype());
    set_geometry(taken, result);
    return taken;
  }

  c10::Device device() const {
    return device_.value_or(c10::Device(TWIN, current));
  }

 private:
  std::optional<c10::Device> device_;
  bool found_on_cpu_ = false;
  std::vector<std::pair<at::Tensor, at::Tensor>> lent_;
};

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const char* name = schema.name().c_str();
  const auto& arguments = schema.arguments();
  const size_t first = stack->size() - arguments.size();
  Loan loan;
  std::optional<at::Generator> generator;
  for (size_t i = 0; i < arguments.size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    if (value.isTensor()) {
      value = loan.lend(value.toTensor(), name, false);
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors = value.toTensorVector();
      for (at::Tensor& tensor : tensors) {
        tensor = loan.lend(tensor, name, false);
      }
      value = c10::List<at::Tensor>(tensors);
    } else if (value.isOptionalTensorList()) {  // the indices of x[i, j] may be the cpu's
      c10::List<std::optional<at::Tensor>> tensors;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        tensors.push_back(tensor ? std::optional(loan.lend(*tensor, name, true)) : tensor);
      }
      value = tensors;
    } else if (value.isDevice() && value.toDevice().type() == TWIN) {
      loan.allow_on(checked(value.toDevice()));
      value = c10::Device(at::kCPU);
    } else if (value.isGenerator()) {
      generator = value.toGenerator();
      TORCH_CHECK(
          generator->device().type() == TWIN, "Expected a generator of this device for ", name,
          ", found one of ", generator->device());
      value = c10::IValue();
    }
  }
  {
    std::optional<LentState> state;
    if (generator || op.hasTag(at::Tag::nondeterministic_seeded)) {
      state.emplace(generator ? *generator : default_generator(loan.device().index()));
    }
    const at::AutoDispatchBelowADInplaceOrView below;
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  loan.take_back_changes();
  const size_t results = stack->size() - schema.returns().size();
  for (size_t i = results; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = loan.take(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors = value.toTensorVector();
      for (at::Tensor& tensor : tensors) {
        tensor = loan.take(tensor);
      }
      value = c10::List<at::Tensor>(tensors);
    } else {
      count_transfer(loan.device());  // an answer read from values, like that of `equal`
    }
  }
}

at::Tensor filled_where_asked(at::Tensor tensor) {
  // What torch's own devices do: `torch.utils.deterministic.fill_uninitialized_memory`.
  auto& context = at::globalContext();
  if (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory()) {
    at::native::fill_empty_deterministic_(tensor);
  }
  return tensor;
}

at::Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
    std::optional<bool> /*pin_memory*/, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(checked(device.value_or(c10::Device(TWIN))));
  return filled_where_asked(at::detail::empty_generic(
      size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype), format));
}

at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
    std::optional<bool> /*pin_memory*/) {
  const c10::DeviceGuard guard(checked(device.value_or(c10::Device(TWIN))));
  return filled_where_asked(at::detail::empty_strided_generic(
      size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype)));
}

// `copy_` where one side, or both, are on this device.
at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool /*non_blocking*/) {
  if (self.device().type() == TWIN && self.device() != to.device()) {
    count_transfer(self.device());
  }
  Loan from_loan;  // two: the sides may be on different devices
  Loan to_loan;
  to_loan.lend(to, "copy_", true).copy_(from_loan.lend(self, "copy_", true));
  return to;
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  count_transfer(self.device());
  Loan loan;
  return at::_local_scalar_dense(loan.lend(self, "item", false));
}

const at::Tensor& resize_(
    const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(self.device());
  return at::native::resize_(self, size, format);
}

// -- recurrent cells: torch asks devices other than the cpu for fused ones -------------------

using OptionalTensor = std::optional<at::Tensor>;

at::Tensor gates_of(const at::Tensor& gates, const OptionalTensor& bias) {
  return bias && bias->defined() ? gates + *bias : gates;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(
    const at::Tensor& input, const at::Tensor& hidden, const at::Tensor& cell,
    const OptionalTensor& input_bias, const OptionalTensor& hidden_bias) {
  const at::Tensor gates = gates_of(input, input_bias) + gates_of(hidden, hidden_bias);
  const auto part = gates.chunk(4, 1);
  const at::Tensor next = part[1].sigmoid() * cell + part[0].sigmoid() * part[2].tanh();
  return {part[3].sigmoid() * next.tanh(), next, gates};
}

std::tuple<at::Tensor, at::Tensor> gru_cell(
    const at::Tensor& input, const at::Tensor& hidden, const at::Tensor& state,
    const OptionalTensor& input_bias, const OptionalTensor& hidden_bias) {
  const at::Tensor gates = gates_of(input, input_bias);
  const auto in = gates.chunk(3, 1);
  const auto from_state = gates_of(hidden, hidden_bias).chunk(3, 1);
  const at::Tensor reset = (in[0] + from_state[0]).sigmoid();
  const at::Tensor keep = (in[1] + from_state[1]).sigmoid();
  const at::Tensor candidate = (in[2] + reset * from_state[2]).tanh();
  return {candidate + keep * (state - candidate), gates};
}

// Above autograd too: torch differentiates what they are made of.
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_thnn_fused_lstm_cell", &lstm_cell);
  m.impl("_thnn_fused_gru_cell", &gru_cell);
}

// -- what is registered -----------------------------------------------------------------------

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("resize_", &resize_);
  m.impl("_thnn_fused_lstm_cell", &lstm_cell);
  m.impl("_thnn_fused_gru_cell", &gru_cell);
  // As wholes, and not by the parts torch would take: mse_loss.out warns on the cpu that it
  // resizes, and convolutions have a kernel in parts for nobody but torch's own devices.
  for (const char* whole : {"mse_loss", "convolution", "convolution_backward"}) {
    m.impl(whole, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  }
  // These put a storage of the device into a tensor of the device, and read no values.
  m.impl("set_", &at::native::set_cpu_);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
}

// -- autocast: torch's own lists of what runs in which precision ----------------------------

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  using namespace at;  // the lists name its types without it
#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FLOAT32_UNLESS_TOLD(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(FLOAT32)
  AT_FORALL_FP32_SET_OPT_DTYPE(FLOAT32_UNLESS_TOLD)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(PROMOTE)
#undef LOWER
#undef FLOAT32
#undef FLOAT32_UNLESS_TOLD
#undef PROMOTE
}

// -- what the Python side needs ---------------------------------------------------------------

Hooks hooks;
[[maybe_unused]] const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  return true;
}();

TORCH_LIBRARY(second_device, m) {
  m.def("count() -> int", []() -> int64_t { return COUNT; });
  m.def("current() -> int", []() -> int64_t { return current; });
  m.def("select(int index) -> int", [](int64_t index) -> int64_t {
    return hooks.exchangeDevice(static_cast<c10::DeviceIndex>(index));
  });
  m.def("transfers(int index) -> int", [](int64_t index) -> int64_t {
    return transfers.at(static_cast<size_t>(index)).load();
  });
  m.def("seed(int index, int seed) -> ()", [](int64_t index, int64_t seed) {
    auto generator = default_generator(static_cast<c10::DeviceIndex>(index));
    generator.set_current_seed(static_cast<uint64_t>(seed));
  });
  m.def("initial_seed(int index) -> int", [](int64_t index) -> int64_t {
    return static_cast<int64_t>(
        default_generator(static_cast<c10::DeviceIndex>(index)).current_seed());
  });
  m.def("rng_state(int index) -> Tensor", [](int64_t index) {
    return default_generator(static_cast<c10::DeviceIndex>(index)).get_state();
  });
  m.def("set_rng_state(int index, Tensor state) -> ()", [](int64_t index, const at::Tensor& state) {
    auto generator = default_generator(static_cast<c10::DeviceIndex>(index));
    generator.set_state(state);
  });
}

}  // namespace
