from django import forms

from .models import Order


class OrderForm(forms.ModelForm):
    class Meta:
        model = Order
        fields = ["customer", "item", "quantity"]
        widgets = {"customer": forms.TextInput(attrs={"autocomplete": "name"})}
